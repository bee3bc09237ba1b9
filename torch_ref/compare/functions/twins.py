"""Twins of a custom autograd.Function, or of any kernel with a backward pass of its own."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_ref.compare.cases import widened
from torch_ref.compare.contract import check_functions
from torch_ref.compare.functions.contract import breaches
from torch_ref.compare.functions.through_autograd import (
    behind_gradients,
    floating,
    gradients,
    leaves_of,
    second_order,
)
from torch_ref.compare.functions.values import DIRECTION, MADE_HERE, TWICE, UPSTREAM, parts, split
from torch_ref.compare.graphs.recording import being_recorded
from torch_ref.compare.identical import changed
from torch_ref.compare.layout import copies_of, has_gaps
from torch_ref.compare.strangers import Saying, told
from torch_ref.compare.twin import Draw, Twin, TwinError, Values

Outputs = Tensor | Sequence[Tensor]

# What torch says, besides NotImplementedError, of a backward that cannot be differentiated.
_NOT_TWICE = (
    "marked with @once_differentiable",
    "not currently support double backward",  # torch.compile
    "no autograd formula was registered",  # torch.library.custom_op
    "compiled with non-empty donated buffers",  # torch.compile, too
    "is not implemented",  # an operation in it without a derivative
)
_CHANGED_ARGUMENT = (
    "`apply` or its backward changes the argument {} in place: copy it first (mark_dirty is for a "
    "result that is the argument)."
)
_CHANGED_UPSTREAM = (
    'the backward of `apply` changes its upstream gradient ("{}") in place: others may need it, '
    "copy it first."
)


def from_function(
    apply: Callable[..., Outputs],
    reference: Callable[..., Outputs],
    inputs: Callable[[Draw], Values],
    *,
    name: str | None = None,
) -> Twin:
    """What `Twin.from_function` says."""
    _check_is_no_class(apply)
    check_functions("from_function", apply=apply, reference=reference, inputs=inputs)
    function = _Function(name or _name_of(apply), apply, reference, inputs)
    return Twin(
        function.name,
        function.drawn,
        function.reference_values,
        function.gradients,
        notes=function.notes,
        failures=lambda: tuple(function.failures),
    )


def _check_is_no_class(apply: object) -> None:
    if isinstance(apply, type) and issubclass(apply, torch.autograd.Function):
        raise TwinError(
            f"from_function needs a Function's `apply`: give {apply.__name__}.apply, not the class."
        )


def _name_of(apply: Callable[..., Outputs]) -> str:
    """The Function's name, of which `apply` is a class method, or the kernel's own."""
    owner = getattr(apply, "__self__", None)
    owner = None if inspect.ismodule(owner) else owner  # of a builtin, the module it lies in
    return str(getattr(owner, "__name__", None) or getattr(apply, "__name__", "function"))


class _Function:
    """What `from_function` needs to know; double backward is tried at the first draw.

    again: the names of what is drawn once more, since the gradients of either side depend on it
        (second-order ones are 0 by nature elsewhere); None before the first draw.
    unclaimed: why the Function's own double backward is not checked; "" where it is.
    failures: what it does not keep to besides the numbers, each once, in order.
    """

    def __init__(
        self,
        name: str,
        apply: Callable[..., Outputs],
        reference: Callable[..., Outputs],
        inputs: Callable[[Draw], Values],
    ) -> None:
        self.name, self.apply, self.reference, self.inputs = name, apply, reference, inputs
        self.again: tuple[str, ...] | None = None
        self.unclaimed = ""
        self.failures: dict[str, None] = {}

    def drawn(self, draw: Draw) -> Values:
        given = self.inputs(draw)
        if not _as_asked_for(given, draw):
            return given  # the harness says what is wrong with it
        self._check_names(given)
        upstream = {
            "upstream" if at == 0 else f"upstream {at + 1}": draw.normal(shape=shape)
            for at, shape in enumerate(self._shapes(given))
        }
        values = {**given, **upstream}
        if self.again is None:
            self._try(values)
        again = {f"{key}{TWICE}": values[key].clone() for key in self.again or ()}
        directions = {
            f"{DIRECTION}{key}": draw.normal(shape=tuple(value.shape))
            for key, value in given.items()
            if self.again and value.is_floating_point()
        }
        return {**values, **again, **directions}

    def notes(self) -> list[str]:
        return [f"double backward is not checked: {self.unclaimed}."] if self.unclaimed else []

    def reference_values(self, values: Values) -> Values:
        once, again, directions = parts(values)
        arguments, upstream = split(once)
        outputs = floating(self.reference(*arguments.values()))
        products = [(o * u).sum() for o, u in zip(outputs, upstream.values(), strict=True)]
        loss = torch.stack(products).sum()
        if directions:
            loss = loss + _second_order(self.reference, once, again, directions)
        return {"loss": loss}

    def gradients(self, values: Values) -> Values:
        # The harness may call from inference mode; here autograd is what is under test.
        with torch.inference_mode(False), torch.enable_grad():
            once, again, directions = parts(copies_of(values))
            found = self._once(once)
            if not being_recorded():  # else it may not look at numbers
                self._say_what_changed(once, values)
            if directions and not self.unclaimed:
                with self._saying("the double backward of `apply`"):
                    found |= self._twice(once, leaves_of(again), leaves_of(directions))
        return {name: value.detach() for name, value in found.items()}

    def _say_what_changed(self, after: Values, before: Values) -> None:
        for name in changed({name: before[name] for name in after}, after):
            sentence = _CHANGED_UPSTREAM if UPSTREAM.fullmatch(name) else _CHANGED_ARGUMENT
            self.failures[sentence.format(name)] = None

    def _once(self, values: Values) -> Values:
        arguments, upstream = split(values)
        leaves = leaves_of(arguments)
        with self._saying(f"`apply`{_laid_out(arguments, 'arguments')}"):
            outputs = floating(self.apply(*leaves.values()))
        self._check_outputs(outputs, upstream)
        # dL/dupstream is the output itself: the forward pass is checked along the way
        found = {n: o.to(u.dtype) for (n, u), o in zip(upstream.items(), outputs, strict=True)}
        way = _laid_out(upstream, "upstream gradients")
        with self._saying(f"the backward of `apply`{way}"):
            return found | gradients(outputs, leaves, list(upstream.values()))

    def _twice(self, once: Values, again: Values, directions: Values) -> Values:
        product = _second_order(self.apply, once, again, directions)
        given = {f"{name}{TWICE}": leaf for name, leaf in again.items()}
        given |= {f"{DIRECTION}{name}": leaf for name, leaf in directions.items()}
        return gradients([product], given)

    def _shapes(self, given: Values) -> list[tuple[int, ...]]:
        with torch.no_grad(), self._saying("reference"):
            result = self.reference(*widened(given).values())
        outputs = floating(result)
        if not outputs:
            raise TwinError(
                f"{self.name}: reference must return a floating tensor, or a tuple with one in it; "
                f"got {_kind(result)}."
            )
        return [tuple(output.shape) for output in outputs]

    def _try(self, values: Values) -> None:
        """Find out `again` and `unclaimed`.

        Raises TwinError where running `apply` forward, backward or twice backward raises, and where
        the reference cannot be differentiated twice but `apply` can.
        """
        with torch.inference_mode(False), torch.enable_grad():
            self._once(copies_of(values))
            with self._saying("`apply`, called as training code does,"):
                self.failures |= dict.fromkeys(breaches(self.apply, *_copies(values)))
            by_apply, self.unclaimed = self._behind_gradients_of_apply(values)
            try:
                by_reference = behind_gradients(self.reference, *_copies(widened(values)))
            except RuntimeError as error:
                if not self.unclaimed:
                    raise TwinError(
                        f"{self.name}: the reference cannot be differentiated twice "
                        f"({told(error)}), so that the double backward of `apply` cannot be "
                        "judged: write the reference in simpler operations, or forbid double "
                        "backward with once_differentiable."
                    ) from error
                by_reference = ()
        self.again = tuple(name for name in values if name in (*by_apply, *by_reference))

    def _behind_gradients_of_apply(self, values: Values) -> tuple[tuple[str, ...], str]:
        """What the gradients depend on, and why torch cannot differentiate them, "" if it can."""
        try:
            with self._saying("the double backward of `apply`"):
                found = behind_gradients(self.apply, *_copies(values))
        except TwinError as error:
            if not _is_not_twice_differentiable(error.__cause__):
                raise
            return (), " ".join(str(error.__cause__).split()).rstrip(".")
        return found, "" if found else "autograd does not record its backward"

    def _check_names(self, given: Values) -> None:
        for name in given:
            if MADE_HERE.fullmatch(name):
                raise TwinError(
                    f'{self.name}: inputs gave "{name}", a name that from_function makes itself '
                    '("upstream", "upstream 2", "... (twice)", "direction of ...", "loss"): give '
                    "it another one."
                )

    def _check_outputs(self, outputs: list[Tensor], upstream: Values) -> None:
        got = [tuple(value.shape) for value in outputs]
        wanted = [tuple(value.shape) for value in upstream.values()]
        if got != wanted:
            raise TwinError(
                f"{self.name}: `apply` and reference must return floating tensors of the same "
                f"shapes; got {_listed(got)} from `apply` and {_listed(wanted)} from reference."
            )
        if not any(output.requires_grad for output in outputs):
            raise TwinError(
                f"{self.name}: autograd cannot follow `apply`: its result has no grad_fn."
            )

    def _saying(self, what: str) -> Saying:
        mend = "; mend it, or forbid it with once_differentiable" if "double" in what else ""
        return Saying(self.name, what, mend)


def _laid_out(values: Values, what: str) -> str:
    """How these lie in memory, where that is worth saying of code that raises."""
    return f", for {what} that are not contiguous," if has_gaps(values) else ""


def _kind(result: Any) -> str:
    return f"a {result.dtype} one" if isinstance(result, Tensor) else type(result).__name__


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(map(str, shapes)) or "none"


def _as_asked_for(given: Any, draw: Draw) -> bool:
    """Whether these are tensors by name as the draw makes them, with a floating one among them."""
    if not isinstance(given, dict) or not all(isinstance(v, Tensor) for v in given.values()):
        return False
    floats = [value for value in given.values() if value.is_floating_point()]
    on_device = all(value.device.type == draw.device.type for value in given.values())
    if any(value.requires_grad for value in given.values()):
        return False
    return bool(floats) and on_device and all(value.dtype == draw.dtype for value in floats)


def _is_not_twice_differentiable(error: BaseException | None) -> bool:
    return isinstance(error, NotImplementedError) or any(text in str(error) for text in _NOT_TWICE)


def _copies(values: Values) -> tuple[Values, Values]:
    return split(copies_of(values))


def _second_order(
    function: Callable[..., Outputs], once: Values, again: Values, directions: Values
) -> Tensor:
    """The second-order part of the loss; what was not drawn once more is as in the first call."""
    values = {name: again.get(name, value.detach()) for name, value in once.items()}
    arguments, upstream = split(values)
    return second_order(function, arguments, upstream, directions)
