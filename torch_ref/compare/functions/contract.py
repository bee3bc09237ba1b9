"""What autograd expects of a custom Function besides the numbers: each breach is one sentence.

None of it shows where every argument requires grad, every output has an upstream gradient, and each
graph is run through once, before the next. Training code does all of these otherwise. The same
formulas may take another way where less is asked of them, so the last digits may be others.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_ref.compare.functions.through_autograd import floating, gradients, leaves_of
from torch_ref.compare.identical import near
from torch_ref.compare.layout import backwards, copies_of, copy_of
from torch_ref.compare.twin import Values


def breaches(apply: Callable[..., Any], arguments: Values, upstream: Values) -> list[str]:
    """What `apply` does not keep to on these numbers, which stay as they are.

    Raises whatever it raises in a plain forward and backward.
    """
    call = _Call(apply, arguments, upstream)
    whole = call.gradients()
    return [
        *call.second_backward(whole),
        *call.some_arguments_at_a_time(whole),
        *call.one_output_at_a_time(),
        *call.another_call_between(whole),
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

    def some_arguments_at_a_time(self, whole: Values) -> Iterator[str]:
        """One with all others frozen, and all others with it frozen."""
        if len(self.names) < 2:
            return
        said: set[str] = set()
        for one in self.names:
            others = tuple(name for name in self.names if name != one)
            ways: list[tuple[tuple[str, ...], str]] = [((one,), f"where {one} alone requires grad")]
            ways += [(others, f"where {one} does not require grad")] * (len(others) > 1)
            for requiring, where in ways:
                for name in _others(self._requiring(requiring), whole):
                    if name not in said:
                        said.add(name)
                        yield (
                            f"dL/d{name} is another one {where}: each gradient belongs to its own "
                            "place in ctx.needs_input_grad."
                        )

    def _requiring(self, names: Sequence[str]) -> Values:
        """The gradients where these alone are asked for."""
        outputs, leaves, upstream = self._run(requiring=names)
        if not any(output.requires_grad for output in outputs):
            return {name: torch.zeros_like(leaves[name]) for name in names}
        return gradients(outputs, leaves, upstream)

    def another_call_between(self, whole: Values) -> Iterator[str]:
        """A call on other numbers, between forward and backward, and after both."""
        outputs, leaves, upstream = self._run()
        before = [copy_of(output.detach()) for output in outputs]
        try:
            self._with_other_numbers().gradients()
            found = gradients(outputs, leaves, upstream)
            kept = {name: copy_of(value) for name, value in found.items()}
            self._with_other_numbers().gradients()
        except Exception:  # anything at all can come out of a stranger's code: of other numbers
            return
        again = "it must not keep tensors between calls, but on ctx"
        if not all(map(near, (output.detach() for output in outputs), before)):
            yield f"another call of `apply` changes the outputs of the one before: {again}."
        for name in _others(kept, whole):
            yield f"another call of `apply` before backward changes dL/d{name}: {again}."
        for name in _others(found, kept):
            yield f"another call of `apply` changes dL/d{name} of the one before: {again}."

    def _with_other_numbers(self) -> "_Call":
        """The same numbers backwards, and a bit smaller: most functions take them."""
        others = {
            name: backwards(value, 0.75) if value.is_floating_point() else value
            for name, value in self.arguments.items()
        }
        return _Call(self.apply, others, self.upstream)

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
    return [name for name, value in found.items() if not near(value, whole[name])]
