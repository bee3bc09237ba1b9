"""What autograd expects of a custom Function besides the numbers: each breach is one sentence.

None of it shows where every argument requires grad, every output has an upstream gradient, and each
graph is run through once. Training code does all of these otherwise.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_ref.compare.functions.through_autograd import floating, gradients, leaves_of
from torch_ref.compare.layout import copies_of, copy_of
from torch_ref.compare.twin import Values

# The same formulas may take another way where less is asked of them. What is looked for is gross: a
# path dropped, a number from another call; so it may differ by this many unit roundoffs.
_ROOM = 2.0**10


def breaches(apply: Callable[..., Any], arguments: Values, upstream: Values) -> list[str]:
    """What `apply` does not keep to on these numbers, which stay as they are.

    Raises whatever it raises in a plain forward and backward.
    """
    call = _Call(apply, arguments, upstream)
    whole = call.gradients()
    return [
        *call.second_backward(whole),
        *call.one_argument_at_a_time(whole),
        *call.one_output_at_a_time(),
    ]


class _Call:
    def __init__(self, apply: Callable[..., Any], arguments: Values, upstream: Values) -> None:
        self.apply, self.arguments, self.upstream = apply, arguments, upstream
        self.names = [name for name, value in arguments.items() if value.is_floating_point()]

    def gradients(self) -> Values:
        outputs, leaves, upstream = self._run()
        return gradients(outputs, leaves, upstream)

    def second_backward(self, whole: Values) -> Iterator[str]:
        """Twice through one graph, as where two losses share a part."""
        outputs, leaves, upstream = self._run()
        try:
            gradients(outputs, leaves, [copy_of(u) for u in upstream], retain_graph=True)
            again = gradients(outputs, leaves, upstream)
        except RuntimeError:  # it is not claimed: compiled functions free what they saved
            return
        for name in _others(again, whole):
            yield (
                f"a second backward through one call of `apply` (retain_graph=True) gives another "
                f"dL/d{name}: backward must leave what it saved as it is."
            )

    def one_argument_at_a_time(self, whole: Values) -> Iterator[str]:
        """All others frozen."""
        if len(self.names) < 2:
            return
        for name in self.names:
            outputs, leaves, upstream = self._run(requiring=(name,))
            if not any(output.requires_grad for output in outputs):
                found: Values = {name: torch.zeros_like(leaves[name])}
            else:
                found = gradients(outputs, leaves, upstream)
            if _others(found, whole):
                yield (
                    f"dL/d{name} is another one where {name} alone requires grad: each gradient "
                    "belongs to its own place in ctx.needs_input_grad."
                )

    def one_output_at_a_time(self) -> Iterator[str]:
        """No upstream gradient for the others must be the same as one of zeros."""
        if len(self.upstream) < 2:
            return
        for at, kept in enumerate(self.upstream):
            try:
                alone = self._from_one_output(at, others=False)
            except Exception as error:  # anything at all can come out of a stranger's code
                yield (
                    f"backward raises {type(error).__name__} where only output {at + 1} has an "
                    f"upstream gradient ({kept}): that of the others is None then."
                )
                continue
            for name in _others(alone, self._from_one_output(at, others=True)):
                yield (
                    f"dL/d{name} is another one where only output {at + 1} has an upstream "
                    f"gradient ({kept}) than where those of the others are zeros."
                )

    def _from_one_output(self, at: int, *, others: bool) -> Values:
        outputs, leaves, upstream = self._run()
        if others:
            zeros = [u if i == at else torch.zeros_like(u) for i, u in enumerate(upstream)]
            return gradients(outputs, leaves, zeros)
        return gradients(outputs[at : at + 1], leaves, upstream[at : at + 1])

    def _run(
        self, requiring: Sequence[str] | None = None
    ) -> tuple[list[Tensor], Values, list[Tensor]]:
        """The outputs of a call on copies, the copies, and those of the upstream gradients."""
        copies = copies_of(self.arguments)
        moving = {n: v for n, v in copies.items() if requiring is None or n in requiring}
        copies |= leaves_of(moving)
        outputs = floating(self.apply(*copies.values()))
        return outputs, copies, [copy_of(value) for value in self.upstream.values()]


def _others(found: Values, whole: Values) -> list[str]:
    """The names whose gradients are other ones."""
    return [name for name, value in found.items() if not _near(value, whole[name])]


def _near(left: Tensor, right: Tensor) -> bool:
    if not right.numel():
        return True
    room = _ROOM * torch.finfo(right.dtype).eps * float(right.nan_to_num().abs().max())
    return bool(torch.isclose(left, right, rtol=0.0, atol=room, equal_nan=True).all())
