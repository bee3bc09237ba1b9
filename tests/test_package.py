"""What is published: a wheel and an sdist that hold all they need, and work once installed."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NEEDED = (
    "manual_bp/py.typed",
    "torch_ref/py.typed",
    "torch_ref/report/page/page.html",
    "torch_ref/report/page/style.css",
    "torch_ref/report/schema.json",
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an sdist, and of the wheel that is made from that sdist alone."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_wheel_holds_both_packages_and_nothing_else(published: Path) -> None:
    (wheel,) = published.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    ours = [path for package in ("manual_bp", "torch_ref") for path in ROOT.glob(f"{package}/**/*")]
    files = {
        str(path.relative_to(ROOT))
        for path in ours
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files - names == set()
    assert set(NEEDED) <= names
    roots = {name.partition("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"manual_bp", "torch_ref"}


def test_the_sdist_can_be_tested(published: Path) -> None:
    (sdist,) = published.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"README.md", "GUIDE.md", "CHANGELOG.md", "LICENSE", "constraints.txt", "conftest.py"}
    assert wanted <= names
    assert {f"tests/{path.name}" for path in (ROOT / "tests").glob("*.py")} <= names
    assert not [name for name in names if name.endswith(".pyc")]


def test_the_installed_wheel_works(published: Path, tmp_path: Path) -> None:
    """Without the checkout: in another folder, with the dependencies of this environment."""
    (wheel,) = published.glob("*.whl")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def output(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    where = output(sys.executable, "-c", "import manual_bp as m, torch_ref as t; print(m, t)")
    assert where.count(str(site)) == 2
    gradtwin = str(site / "bin" / "gradtwin")
    assert output(sys.executable, gradtwin, "--version").startswith("gradtwin ")
    verified = output(sys.executable, gradtwin, "verify", "--cases", "100", "--report", "page.html")
    assert verified.endswith("agree: every difference is rounding")
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    points = output(
        sys.executable,
        "-c",
        "from importlib.metadata import distribution as d; print(*d('gradtwin').entry_points)",
    )
    assert "torch_ref.cli:main" in points
    assert "group='pytest11'" in points
