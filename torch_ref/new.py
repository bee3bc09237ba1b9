"""`gradtwin new NAME`: a starting file, a copy of `torch_ref/template.py` under the user's name."""

import keyword
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path


def write_starting_file(name: str, folder: Path) -> Path:
    """Write NAME.py, whole or not at all, into the folder; returns its path.

    Raises ValueError for a name that cannot be imported as a module of its own, FileExistsError
    where the file is there already and OSError where it cannot be written.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(
            f"{name!r} is no Python name: letters, digits and underscores are needed, "
            "no digit first and no ending .py, for example my_layer."
        )
    path = folder / f"{name}.py"
    if path.exists():
        raise FileExistsError(f"{path.name} is there already, and is left as it is.")
    # a file torch.py would be what `import torch` finds in its folder
    if name in sys.modules or find_spec(name) is not None:
        raise ValueError(f"{name} is the name of an installed module: choose another one.")
    _write_whole(path, starting_text(name))
    return path


def starting_text(name: str) -> str:
    """The template with NAME in place of its own name."""
    text = files("torch_ref").joinpath("template.py").read_text(encoding="utf-8")
    return text.replace("template", name)


def _write_whole(path: Path, text: str) -> None:
    """Raises FileExistsError where a file has appeared meanwhile; leaves no part of one."""
    with path.open("x", encoding="utf-8") as file:
        try:
            file.write(text)
            file.flush()
        except BaseException:
            path.unlink()
            raise
