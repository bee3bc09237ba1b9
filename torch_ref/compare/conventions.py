"""Where torch's operations are not what their name says in a textbook: told beside a difference."""

from collections.abc import Callable

import torch

from torch_ref.compare.graphs.recording import recorded
from torch_ref.compare.graphs.taken_apart import as_written
from torch_ref.compare.rounding.operation import name_of
from torch_ref.compare.twin import Values

EPS = torch.finfo(torch.float64).eps
CONVENTIONS = {
    "eps": "The reference adds float64's own eps, 2.2e-16, as torch's rms_norm does where none is "
    "given: it always runs in float64, and in another dtype the hand's eps is another number. "
    "Give both the same one.",
    "softplus": "The reference uses softplus, which torch takes for x itself above a threshold, "
    "with derivative 1: ln(1 + exp(x)) and sigmoid(x) are other numbers there, by up to 2e-9 of "
    "them above 20, which it is unless another is given; logaddexp(x, 0) has none.",
}


def conventions(reference: Callable[[Values], Values], inputs: Values) -> tuple[str, ...]:
    """What there is to say of the operations that the reference uses on these inputs, each once.

    Nothing where it cannot be recorded: no verdict rests on it.
    """
    try:
        with torch.no_grad(), as_written():
            found = recorded(
                lambda *tensors: tuple(reference(dict(zip(inputs, tensors))).values()),
                *inputs.values(),
                may_decide=True,
            )
    except Exception:  # anything can come out of recording a user's function
        return ()
    used = set(map(name_of, found.graph.nodes))
    if any(EPS in node.args for node in found.graph.nodes):
        used.add("eps")
    return tuple(text for name, text in CONVENTIONS.items() if name in used)
