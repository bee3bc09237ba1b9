"""Where torch's operations are not what their name says in a textbook: told beside a difference."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from torch_ref.compare.twin import Values

CONVENTIONS = {
    "softplus": "The reference uses softplus, which torch takes for x itself above a threshold, "
    "with derivative 1: ln(1 + exp(x)) and sigmoid(x) are other numbers there, by up to 2e-9 of "
    "them above 20, which it is unless another is given.",
}


def conventions(reference: Callable[[Values], Values], inputs: Values) -> tuple[str, ...]:
    """What there is to say of the operations that the reference uses on these inputs, each once.

    Of those before it raises, where it does: no verdict rests on it.
    """
    used = _Used()
    with suppress(Exception), torch.no_grad(), used:
        reference(dict(inputs))
    return tuple(text for name, text in CONVENTIONS.items() if name in used.names)


class _Used(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the names of all operations while it is on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.names.add(func.__name__.split(".")[0])
        return func(*args, **(kwargs or {}))
