"""A run as one safetensors file, written whole or not at all; nothing is pickled.

Tensors are stored as such; numbers, names and the order of everything are JSON in the file's
metadata, which gives Python's floats back to the bit.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_ref.report.files import replace_file

FORMAT = "gradtwin checkpoint 1"


class CheckpointError(ValueError):
    """A file that this run cannot go on from; the message is one clear sentence."""


def save(path: Path, state: dict[str, Any], identity: dict[str, Any]) -> None:
    """Write a state (dicts, lists and tuples of tensors and plain values) of the run `identity`.

    A file that was there stays until the new one is complete. Raises OSError.
    """
    from safetensors.torch import save as as_bytes

    tensors: dict[str, Tensor] = {}
    plain = _packed(state, tensors)
    metadata = {"format": FORMAT, "identity": json.dumps(identity), "state": json.dumps(plain)}
    replace_file(path, as_bytes(tensors, metadata))


def load(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The state of the run `identity`. Raises CheckpointError: none there, damaged, another's."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(
            f"there is no checkpoint {path} to resume from: leave --resume out to begin one."
        ) from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is no whole safetensors file ({error}): give another, or begin anew."
        ) from None
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file, but no checkpoint of this version: "
            f"{FORMAT!r} was expected, {metadata.get('format')!r} came."
        )
    try:
        there, state = json.loads(metadata["identity"]), json.loads(metadata["state"])
        found: dict[str, Any] = _unpacked(state, tensors)
    except (KeyError, ValueError):  # written by something else, or by hand
        raise CheckpointError(
            f"{path} does not hold what its own list says: give another file, or begin anew."
        ) from None
    _check_identity(path, there, identity)
    return found


def _check_identity(path: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    here = json.loads(json.dumps(here))  # a tuple comes back as a list
    for name in here.keys() | there.keys():
        if there.get(name) != here.get(name):
            raise CheckpointError(
                f"{path} is a checkpoint of another run: {name} is {there.get(name)} there and "
                f"{here.get(name)} here. Give that run's options, or another file."
            )


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON; each tensor goes into `tensors` and leaves its name."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().clone().contiguous()  # no two may share memory
        return {"tensor": name}
    if isinstance(value, dict):  # JSON has no keys but strings: optimizers count parameters
        return {"dict": [[key, _packed(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_packed(item, tensors) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}.")


def _unpacked(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return torch.clone(tensors[content])
    if kind == "dict":
        return {key: _unpacked(item, tensors) for key, item in content}
    items = [_unpacked(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
