"""Find a user's twin by its address: `path/to/file.py:name` or `package.module:name`."""

import importlib
import sys
import sysconfig
import traceback
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from torch_ref.compare import Twin


class LoadingError(ValueError):
    """No twin could be loaded; the message is one clear sentence."""


@dataclass(frozen=True)
class FoundTwin:
    """A twin, and the address under which the command finds it again."""

    twin: "Twin"
    address: str

    @property
    def name(self) -> str:
        """What it is called there."""
        return self.address.rpartition(":")[2]


def find_twin(address: str) -> FoundTwin:
    """The twin at `FILE.py:NAME` or `MODULE:NAME`; the name may be left out where there is one.

    Raises LoadingError as `find_twins` does, and where there are several.
    """
    first, *others = find_twins(address)
    if not others:
        return first
    names = ", ".join(found.name for found in (first, *others))
    raise LoadingError(
        f"{address} has {1 + len(others)} twins ({names}): say which one, "
        f"for example {first.address}."
    )


def find_twins(address: str) -> list[FoundTwin]:
    """The twin of that name, or without one all that are there, at least one, in their order.

    The folder of the file, or the current folder for a module, becomes importable, as Python does
    for scripts and for `python -m`. Raises LoadingError where there is no such file, module or
    name, and where importing it fails.
    """
    place, name = _split(address)
    module = _run_file(place) if _is_file(place) else _import_module(place)
    return [_named(module, place, name)] if name is not None else _all(module, place)


def _split(address: str) -> tuple[str, str | None]:
    """The file or module, and the name after the last colon, if there is one."""
    if address.endswith(".py"):
        return address, None
    place, colon, name = address.rpartition(":")
    if not colon:
        return address, None
    if not place or not name.isidentifier():
        raise LoadingError(
            f"{address!r} is no address of a twin: FILE.py:NAME or MODULE:NAME is needed, "
            "for example mine.py:twin."
        )
    return place, name


def _is_file(place: str) -> bool:
    if place.endswith(".py") or Path(place).is_file():
        return True
    if "/" in place or "\\" in place:
        raise LoadingError(f"{place} is not a Python file: a name that ends in .py is needed.")
    return False


# a file -------------------------------------------------------------------------------------------


def _run_file(place: str) -> ModuleType:
    """The file's module, compiled anew: a cached one can be older than an edit made just now."""
    path = Path(place)
    if not path.is_file():
        raise LoadingError(_no_file(path))
    try:
        source = path.read_bytes()
    except OSError as error:
        raise LoadingError(f"{place} cannot be read: {error.strerror}.") from None
    module = ModuleType(_module_name(path))
    module.__file__, module.__package__ = str(path.resolve()), ""
    module.__spec__ = ModuleSpec(module.__name__, None, origin=module.__file__)
    _make_importable(path.resolve().parent)
    sys.modules[module.__name__] = module  # dataclasses and inspect look there
    try:
        exec(compile(source, place, "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        sys.modules.pop(module.__name__, None)
        if isinstance(error, (Exception, SystemExit)):  # anything can come out of a user's file
            raise LoadingError(_failed(place, error)) from error
        raise
    return module


def _no_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder: a Python file is needed, for example {path / 'mine.py'}."
    if not path.parent.is_dir():
        return f"{path} does not exist: there is no folder {path.parent}."
    names = sorted(file.name for file in path.parent.glob("*.py"))
    close = get_close_matches(path.name, names, n=1, cutoff=0.75)
    hint = f"did you mean {path.with_name(close[0])}?" if close else "check the path."
    return f"{path} does not exist; {hint}"


def _module_name(path: Path) -> str:
    """The file's own name, unless another module has it: a file `random.py` must not replace it."""
    taken = sys.modules.get(path.stem)
    if taken is None and path.stem not in sys.stdlib_module_names:
        return path.stem
    if taken is not None and getattr(taken, "__file__", None) == str(path.resolve()):
        return path.stem
    return f"twin_file_{path.stem}"


# a module ----------------------------------------------------------------------------------------


def _import_module(place: str) -> ModuleType:
    if not all(part.isidentifier() for part in place.split(".")):
        raise LoadingError(
            f"{place!r} is neither a file nor the name of a module: FILE.py:NAME or MODULE:NAME is "
            "needed."
        )
    _make_importable(Path.cwd())
    importlib.invalidate_caches()  # the file may have been written just now
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or place
        if place != missing and not place.startswith(f"{missing}."):
            raise LoadingError(_failed(place, error)) from error
        raise LoadingError(
            f"there is no module {missing} here: a file needs its path and the ending .py, "
            "a module must be in the current folder or installed."
        ) from None
    except (Exception, SystemExit) as error:  # anything can come out of a user's module
        raise LoadingError(_failed(place, error)) from error


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


# what went wrong ---------------------------------------------------------------------------------


def _failed(place: str, error: BaseException) -> str:
    """One sentence: which file, what it raised, and at which line."""
    if isinstance(error, SystemExit):
        return (
            f"{place} ended the program while it was imported{_line(error)}: put what shall run as "
            'a script only under `if __name__ == "__main__":`.'
        )
    if isinstance(error, SyntaxError):
        where = f"{error.filename or place}, line {error.lineno}" if error.lineno else place
        return f"{place} is no valid Python: {error.msg} ({where})."
    message = f"{place} fails to import: {type(error).__name__}: {_one_line(error)}{_line(error)}."
    if isinstance(error, ImportError) and "relative import" in str(error):
        return f"{message[:-1]}; give the module instead, as PACKAGE.{Path(place).stem}:NAME."
    return message


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or "no message"


def _line(error: BaseException) -> str:
    """The last line of the user's own code that the error passed: not torch's, nor Python's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<frozen")
    ]
    own = [frame for frame in frames if not _is_library(frame.filename)] or frames
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _is_library(filename: str) -> bool:
    folders = {sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")}
    folders.add(str(Path(__file__).parent))
    return any(Path(filename).is_relative_to(folder) for folder in folders)


# the twin in it ----------------------------------------------------------------------------------


def _all(module: ModuleType, place: str) -> list[FoundTwin]:
    found = [FoundTwin(twin, f"{place}:{name}") for name, twin in _twins(module).items()]
    if found:
        return found
    raise LoadingError(f"{place} has no twin: a line such as twin = Twin(...) is needed.")


def _named(module: ModuleType, place: str, name: str) -> FoundTwin:
    value = getattr(module, name, None)
    if _is_twin(value):
        return FoundTwin(value, f"{place}:{name}")
    raise LoadingError(_no_twin(module, place, name, list(_twins(module))))


def _twins(module: ModuleType) -> "dict[str, Twin]":
    """The module's twins by name; one that has several names counts once."""
    twins: dict[str, Twin] = {}
    for name, value in vars(module).items():
        if _is_twin(value) and not any(value is other for other in twins.values()):
            twins[name] = value
    return twins


def _is_twin(value: object) -> "TypeGuard[Twin]":
    from torch_ref.compare import Twin

    return isinstance(value, Twin)


def _no_twin(module: ModuleType, place: str, name: str, names: list[str]) -> str:
    if hasattr(module, name):
        kind = type(getattr(module, name)).__name__
        what = f"{name} in {place} is of type {kind}, and a Twin is needed"
    else:
        what = f"{place} has no twin {name}"
    if not names:
        return f"{what}; it has no twin at all: a line such as twin = Twin(...) is needed."
    there = (
        f"the twin there is {names[0]}"
        if len(names) == 1
        else f"the twins there are {', '.join(names)}"
    )
    return f"{what}; {there}."
