"""The command line as a program of its own: exit codes, pipes, a full disk, what it imports."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch_ref", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_python_m_torch_ref_is_the_same_program() -> None:
    done = run("verify", "--cases", "60", "--dtype", "float64")
    assert (done.returncode, done.stderr) == (0, "")  # no progress bar either
    assert "agree: every difference is rounding" in done.stdout
    assert run("verify", "--cases", "0").returncode == 2


def test_a_reader_that_has_gone_is_not_exit_code_1() -> None:
    command = f"set -o pipefail; {sys.executable} -m torch_ref audit | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_the_output_is_one_sentence() -> None:
    command = f"{sys.executable} -m torch_ref audit > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "gradtwin: the output could not be written: No space left on device.\n"


def test_help_documents_the_exit_codes_and_version_answers() -> None:
    assert "0 agree, 1 differ, 2 bad usage or input, 3 undecided" in run("--help").stdout
    assert run("--version").stdout.startswith("gradtwin 0.")


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from torch_ref.cli import main\n"
        "try: main(['verify', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
