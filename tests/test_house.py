"""The house in order: linters, types, what imports what, and papers that tell the truth."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("manual_bp", "torch_ref")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("check", ["ruff check .", "ruff format --check .", "mypy"])
def test_linters_and_types(check: str) -> None:
    done = python("-m", *check.split())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "kept_out"),
    [
        ("manual_bp", ("torch", "sympy", "jax")),
        ("torch_ref", ("rich", "torch_ref.cli", "matplotlib", "sklearn")),
        ("torch_ref.cli", ("torch", "rich", "sympy")),
        ("torch_ref.report", ("torch", "sympy")),
        ("manual_bp.derivation", ("torch",)),
        ("torch_ref.module", ("manual_bp",)),
    ],
)
def test_imports_stay_light(module: str, kept_out: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*(set({kept_out!r}) & set(sys.modules)))"
    done = python("-c", code)
    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_the_judge_knows_no_network() -> None:
    for file in (ROOT / "torch_ref" / "compare").rglob("*.py"):
        assert "manual_bp" not in file.read_text(), file.name


def test_version_is_that_of_the_package() -> None:
    done = python("-m", "torch_ref", "--version")
    assert done.stdout.strip() == f"gradtwin {version('gradtwin')}"


def test_the_layout_names_every_file() -> None:
    """Each where its folder is told of; of folders with files that are all alike the folder."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## The checks")[0]
    layout, way = text.split("## The way of a verdict")
    families = ("commands", "gallery", "selftest", "explain", "report")
    told: dict[str, str] = {"compare": way}
    folder = ""
    for line in text.splitlines():
        if line.startswith("    ") and not line.startswith(" " * 7):  # else it goes on
            (folder,) = re.findall(r"(?:^|, )\s*(\w+)/", line[:36])[-1:] or ("torch_ref",)
        told[folder] = told.get(folder, "") + line
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            place = file.parent.name
            if place in families:
                assert f"{place}/" in text, place
            elif not file.name.startswith("__"):
                about = told.get(place, "") if place not in PACKAGES else layout
                assert re.search(rf"\b{file.name}", about), file


def test_the_constraints_pin_the_plain_torch() -> None:
    pins = (ROOT / "constraints.txt").read_text().split()
    assert "torch==2.13.0" in pins
    assert not [pin for pin in pins if "+" in pin.partition("==")[2]]


def test_the_hooks_run_without_an_activated_environment(tmp_path: Path) -> None:
    """In a repository of their own: PATH has git, and no Python with ruff in it."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    (tmp_path / ".pre-commit-config.yaml").write_text(config)
    (tmp_path / "module.py").write_text("import os\n")
    bare = {"PATH": str(Path(shutil.which("git") or "git").parent), "HOME": str(tmp_path)}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True)

    run("git", "init", "-q")
    run("git", "add", ".pre-commit-config.yaml", "module.py")
    hook = [".venv/bin/python", "-m", "pre_commit", "run", "ruff-check"]
    refused = run(*hook)
    assert (refused.returncode, "1 fixed" in refused.stdout) == (1, True), refused.stdout
    run("git", "add", "module.py")
    accepted = run(*hook)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert config.count("entry: .venv/bin/python -m ") == config.count("entry:") == 3
