"""Finding a user's twin: what is found, and the one sentence that says why it is not."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from torch_ref import Twin
from torch_ref.loading import LoadingError, find_twin, find_twins

TWIN = "from torch_ref import Twin\n{name} = Twin('{name}', dict, dict, dict)\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder of its own; what a test imports from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def write(path: str, text: str = TWIN.format(name="twin")) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def refusal(address: str) -> str:
    """What find_twin says; always one line."""
    with pytest.raises(LoadingError) as caught:
        find_twin(address)
    message = str(caught.value)
    assert "\n" not in message
    return message


# what is found -----------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["mine.py:twin", "./mine.py:twin", "mine:twin"])
def test_a_twin_of_a_file_or_a_module(address: str) -> None:
    write("mine.py")
    found = find_twin(address)
    assert isinstance(found.twin, Twin)
    assert (found.twin.name, found.address) == ("twin", address)


def test_absolute_paths_and_other_folders(folder: Path) -> None:
    write("deep/er/mine.py")
    assert find_twin(f"{folder}/deep/er/mine.py:twin").twin.name == "twin"
    assert find_twin("deep/er/mine.py").address == "deep/er/mine.py:twin"


def test_the_module_of_a_package() -> None:
    write("layers/__init__.py", "")
    write("layers/numbers.py", "one = 1\n")
    write("layers/mine.py", "from .numbers import one\n" + TWIN.format(name="twin"))
    assert find_twin("layers.mine:twin").twin.name == "twin"
    assert find_twin("layers.mine").address == "layers.mine:twin"


def test_a_script_without_an_ending() -> None:
    write("script")
    assert find_twin("script:twin").twin.name == "twin"


@pytest.mark.parametrize("extra", ["", "alias = twin\n", "Twin2 = Twin\n"])
def test_the_name_may_be_left_out_where_there_is_one_twin(extra: str) -> None:
    write("mine.py", TWIN.format(name="twin") + extra)
    assert find_twin("mine.py").address == "mine.py:twin"


def test_the_folder_of_the_file_is_importable_as_for_a_script(folder: Path) -> None:
    write("deep/helper.py", "answer = 42\n")
    write("deep/mine.py", "from helper import answer\n" + TWIN.format(name="twin"))
    find_twin("deep/mine.py")
    assert sys.path[0] == str(folder / "deep")


def test_a_file_is_read_anew_each_time() -> None:
    write("mine.py", TWIN.format(name="first"))
    assert find_twin("mine.py").twin.name == "first"
    write("mine.py", TWIN.format(name="other"))  # as long, within the same second
    assert find_twin("mine.py").twin.name == "other"
    assert not Path("__pycache__").exists()


@pytest.mark.parametrize("name", ["random", "numpy", "pytest"])
def test_a_file_does_not_replace_the_module_of_its_name(name: str) -> None:
    before = sys.modules.get(name)
    write(f"{name}.py")
    assert find_twin(f"{name}.py").twin.name == "twin"
    assert sys.modules.get(name) is before


def test_what_only_a_script_does_is_not_done() -> None:
    write("mine.py", TWIN.format(name="twin") + "if __name__ == '__main__': raise SystemExit(3)\n")
    assert find_twin("mine.py").twin.name == "twin"


def test_dataclasses_in_the_file_find_their_module() -> None:
    code = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Sizes:\n    rows: int = 2\n"
    )
    write("mine.py", code + TWIN.format(name="twin"))
    assert find_twin("mine.py").twin.name == "twin"


# the address -------------------------------------------------------------------------------------

ADDRESSES = {
    "mine.py:": "'mine.py:' is no address of a twin: FILE.py:NAME or MODULE:NAME is needed, for "
    "example mine.py:twin.",
    "mine.py:2": "'mine.py:2' is no address of a twin: FILE.py:NAME or MODULE:NAME is needed, for "
    "example mine.py:twin.",
    ":twin": "':twin' is no address of a twin: FILE.py:NAME or MODULE:NAME is needed, for example "
    "mine.py:twin.",
    "": "'' is neither a file nor the name of a module: FILE.py:NAME or MODULE:NAME is needed.",
    "not-a-module:twin": "'not-a-module' is neither a file nor the name of a module: FILE.py:NAME "
    "or MODULE:NAME is needed.",
    "absent.py": "absent.py does not exist; check the path.",
    "mini.py:twin": "mini.py does not exist; did you mean mine.py?",
    "nowhere/mine.py:twin": "nowhere/mine.py does not exist: there is no folder nowhere.",
    "folder.py": "folder.py is a folder: a Python file is needed, for example folder.py/mine.py.",
    "folder.py/:twin": "folder.py/ is not a Python file: a name that ends in .py is needed.",
    "absent:twin": "there is no module absent here: a file needs its path and the ending .py, a "
    "module must be in the current folder or installed.",
    "torch_ref.absent:twin": "there is no module torch_ref.absent here: a file needs its path and "
    "the ending .py, a module must be in the current folder or installed.",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_leads_nowhere(address: str) -> None:
    write("mine.py")
    Path("folder.py").mkdir()
    assert refusal(address) == ADDRESSES[address]


# the name ----------------------------------------------------------------------------------------


def test_a_name_that_is_not_there_lists_those_that_are() -> None:
    write("mine.py", TWIN.format(name="first") + TWIN.format(name="second"))
    message = "mine.py has no twin twin; the twins there are first, second."
    assert refusal("mine.py:twin") == message


def test_a_name_that_is_no_twin() -> None:
    write("mine.py", "def manual(values): ...\n" + TWIN.format(name="twin"))
    message = "manual in mine.py is of type function, and a Twin is needed; the twin there is twin."
    assert refusal("mine.py:manual") == message


def test_several_twins_and_no_name() -> None:
    write("mine.py", TWIN.format(name="first") + TWIN.format(name="second"))
    message = "mine.py has 2 twins (first, second): say which one, for example mine.py:first."
    assert refusal("mine.py") == message
    assert [found.address for found in find_twins("mine.py")] == ["mine.py:first", "mine.py:second"]
    assert [found.name for found in find_twins("mine.py:second")] == ["second"]


@pytest.mark.parametrize("place", ["mine.py", "mine"])
def test_no_twin_at_all(place: str) -> None:
    write("mine.py", "twin = 1\n")
    assert refusal(place) == f"{place} has no twin: a line such as twin = Twin(...) is needed."
    assert refusal(f"{place}:twin") == (
        f"twin in {place} is of type int, and a Twin is needed; it has no twin at all: "
        "a line such as twin = Twin(...) is needed."
    )


# what fails while it is imported -----------------------------------------------------------------

FAILS = {
    "import torch\n\ny = torch.zeros(2) @ w\n": "NameError: name 'w' is not defined",
    "import torch\n\ntorch.zeros(2).view(3)\n": "RuntimeError: shape '[3]' is invalid",
    "\n\nraise ValueError('two\\nlines.')\n": "ValueError: two lines (",
    "\n\nraise Exception\n": "Exception: no message (",
    "import sys\n\nimport not_installed\n": "ModuleNotFoundError: No module named 'not_installed'",
}


@pytest.mark.parametrize("place", ["mine.py", "mine"])
@pytest.mark.parametrize("text", FAILS)
def test_an_error_is_named_with_its_line(text: str, place: str, folder: Path) -> None:
    write("mine.py", text)
    message = refusal(f"{place}:twin")
    assert message.startswith(f"{place} fails to import: {FAILS[text]}")
    file = "mine.py" if place == "mine.py" else folder / "mine.py"
    assert message.endswith(f" ({file}, line 3).")


def test_the_line_is_the_users_own_where_a_library_raises() -> None:
    write("mine.py", "import numpy as np\nnp.linalg.inv(np.zeros((2, 2)))\n")
    assert refusal("mine.py") == (
        "mine.py fails to import: LinAlgError: Singular matrix (mine.py, line 2)."
    )


def test_the_line_of_a_module_that_the_file_imports(folder: Path) -> None:
    write("helper.py", "\n\n1 / 0\n")
    write("mine.py", "import helper\n")
    message = f"mine.py fails to import: ZeroDivisionError: division by zero ({folder}/helper.py, "
    assert refusal("mine.py") == message + "line 3)."


@pytest.mark.parametrize("place", ["mine.py", "mine"])
def test_a_syntax_error(place: str, folder: Path) -> None:
    write("mine.py", "def manual(values):\n    return {'x': 1\n")
    file = "mine.py" if place == "mine.py" else folder / "mine.py"
    assert refusal(place) == f"{place} is no valid Python: '{{' was never closed ({file}, line 2)."


def test_bytes_that_are_no_text() -> None:
    Path("mine.py").write_bytes(b"name = '\xff'\n")
    assert refusal("mine.py").startswith("mine.py is no valid Python: ")
    Path("mine.py").write_bytes(b"\x00")
    assert "null bytes" in refusal("mine.py")


@pytest.mark.parametrize("place", ["mine.py", "mine"])
def test_a_file_that_ends_the_program(place: str, folder: Path) -> None:
    write("mine.py", "import sys\n\nsys.exit(0)\n")
    file = "mine.py" if place == "mine.py" else folder / "mine.py"
    assert refusal(place) == (
        f"{place} ended the program while it was imported ({file}, line 3): put what shall run as "
        'a script only under `if __name__ == "__main__":`.'
    )


def test_a_relative_import_needs_the_module_address() -> None:
    write("layers/__init__.py", "")
    write("layers/mine.py", "from .numbers import one\n")
    assert refusal("layers/mine.py:twin") == (
        "layers/mine.py fails to import: ImportError: attempted relative import with no known "
        "parent package (layers/mine.py, line 1); give the module instead, as PACKAGE.mine:NAME."
    )


def test_a_file_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    write("mine.py")
    monkeypatch.setattr(Path, "read_bytes", deny)
    assert refusal("mine.py") == "mine.py cannot be read: Permission denied."


def test_ctrl_c_is_not_swallowed() -> None:
    write("mine.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        find_twin("mine.py")
    assert "mine" not in sys.modules
