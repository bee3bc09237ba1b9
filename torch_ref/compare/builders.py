"""Twins made from what people have: an nn.Module, or a custom autograd.Function."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_ref.compare.contract import copy_of
from torch_ref.compare.twin import Draw, Twin, TwinError, Values

_DIRECTION = "direction of "


def from_module(
    module: nn.Module,
    loss: Callable[[Tensor, Values], Tensor],
    manual: Callable[[Values], Values],
    inputs: Callable[[Draw], Values],
    *,
    name: str | None = None,
) -> Twin:
    """A twin whose reference is a module.

    module: its parameters go by the names of `named_parameters`, every submodule's output by the
        submodule's path ("encoder.0"), and the module's own output by "output".
    loss(output, values): the loss, from the module's output and all inputs; shape () for a
        one-case twin.
    manual(values): hand-written gradients; values holds inputs and parameters.
    inputs(draw): the arguments of the module's `forward` by their names, and whatever else the
        loss needs. A parameter that it does not give is drawn around the module's own numbers: with
        normal noise as large as their root mean square, or 1 where they are all 0.
    """
    arguments = _argument_names(module)
    parameters = {key: value.detach().double().cpu() for key, value in module.named_parameters()}

    def drawn(draw: Draw) -> Values:
        given = inputs(draw)
        return {**given, **{k: _around(v, draw) for k, v in parameters.items() if k not in given}}

    def reference(values: Values) -> Values:
        found: Values = {}
        hooks = [
            part.register_forward_hook(_keep(found, path or "output"))
            for path, part in module.named_modules()
        ]
        try:
            chosen = {key: values[key] for key in parameters}
            given = {key: values[key] for key in arguments if key in values}
            output: Tensor = functional_call(module, chosen, (), given)
        finally:
            for hook in hooks:
                hook.remove()
        return {**found, "loss": loss(output, values)}

    return Twin(name or type(module).__name__, drawn, reference, manual)


def _argument_names(module: nn.Module) -> list[str]:
    return [
        key
        for key, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]


def _around(value: Tensor, draw: Draw) -> Tensor:
    spread = float(value.square().mean().sqrt()) or 1.0
    return draw.cast(value.numpy() + draw.generator.normal(0.0, spread, tuple(value.shape)))


def _keep(found: Values, path: str) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            found[path] = output

    return hook


def from_function(
    apply: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    inputs: Callable[[Draw], Values],
    *,
    name: str | None = None,
) -> Twin:
    """A one-case twin of a custom `torch.autograd.Function`, or of a kernel with its own backward.

    apply(*tensors): the Function's `apply`, called with the tensors of `inputs` in their order;
        one tensor comes out. Its gradients come from running autograd *through* it, from a random
        upstream gradient: the input "upstream", laid out in memory in all ways that the stresses
        know.
    reference(*tensors): the same in plain differentiable torch.
    inputs(draw): the tensors of one case, by name.

    Where the Function can be differentiated twice, its double backward is checked as well: "x
    (twice)" is x once more, and its gradient that of the inner product of dL/dx with a random
    direction. Saved intermediates make it silently wrong (pytorch/pytorch#76185).
    """
    function = _Function(apply, reference, inputs)
    return Twin(
        name or _name_of(apply),
        function.drawn,
        function.reference_values,
        function.gradients,
    )


def _name_of(apply: Callable[..., Tensor]) -> str:
    """The Function's name, of which `apply` is a class method, or the kernel's own."""
    owner = getattr(apply, "__self__", None)
    return str(getattr(owner, "__name__", None) or getattr(apply, "__name__", "function"))


class _Function:
    """What `from_function` needs to know; double backward is tried at the first draw."""

    def __init__(
        self,
        apply: Callable[..., Tensor],
        reference: Callable[..., Tensor],
        inputs: Callable[[Draw], Values],
    ) -> None:
        self.apply, self.reference, self.inputs = apply, reference, inputs
        self.twice: bool | None = None

    def drawn(self, draw: Draw) -> Values:
        given = self.inputs(draw)
        with torch.no_grad():
            shape = tuple(self.reference(*given.values()).shape)
        values = {**given, "upstream": draw.normal(shape=shape)}
        if self.twice is None:
            self.twice = _can_be_differentiated_twice(self.apply, values)
        if not self.twice:
            return values
        again = {f"{key} (twice)": value.clone() for key, value in values.items()}
        directions = {
            f"{_DIRECTION}{key}": draw.normal(shape=tuple(value.shape))
            for key, value in given.items()
            if value.is_floating_point()
        }
        return {**values, **again, **directions}

    def reference_values(self, values: Values) -> Values:
        once, again, directions = _parts(values)
        output = self.reference(*_arguments(once))
        loss = (output * once["upstream"]).sum()
        if again:
            loss = loss + _second_order(self.reference, again, directions)
        return {"loss": loss}

    def gradients(self, values: Values) -> Values:
        # The harness may call from inference mode; here autograd is what is under test.
        with torch.inference_mode(False), torch.enable_grad():
            once, again, directions = _parts({n: copy_of(v) for n, v in values.items()})
            leaves = _leaves({n: v for n, v in once.items() if n != "upstream"})
            output = self.apply(*leaves.values())
            # dL/dupstream is the output itself: the forward pass is checked along the way
            found = {"upstream": output, **_gradients(output, leaves, once["upstream"])}
            if again:
                found |= self._twice(_leaves(again), _leaves(directions))
        return {name: value.detach() for name, value in found.items()}

    def _twice(self, again: Values, directions: Values) -> Values:
        product = _second_order(self.apply, again, directions)
        given = {f"{name} (twice)": leaf for name, leaf in again.items()}
        given |= {f"{_DIRECTION}{name}": leaf for name, leaf in directions.items()}
        return _gradients(product, given)


def _parts(values: Values) -> tuple[Values, Values, Values]:
    """The tensors of one call, those of the twice differentiated one, and the directions."""
    again = {n.removesuffix(" (twice)"): v for n, v in values.items() if n.endswith(" (twice)")}
    directions = {
        n.removeprefix(_DIRECTION): v for n, v in values.items() if n.startswith(_DIRECTION)
    }
    once = {
        name: value
        for name, value in values.items()
        if not name.endswith(" (twice)") and not name.startswith(_DIRECTION)
    }
    return once, again, directions


def _arguments(values: Values) -> list[Tensor]:
    return [value for name, value in values.items() if name != "upstream"]


def _leaves(values: Values) -> Values:
    return {n: v.requires_grad_() if v.is_floating_point() else v for n, v in values.items()}


def _gradients(output: Tensor, leaves: Values, upstream: Tensor | None = None) -> Values:
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    found = torch.autograd.grad(
        output, list(wanted.values()), upstream, allow_unused=True, materialize_grads=True
    )
    return dict(zip(wanted, found, strict=True))


def _second_order(function: Callable[..., Tensor], values: Values, directions: Values) -> Tensor:
    """The inner product of the first-order gradients with the directions, differentiable."""
    arguments = [value for name, value in values.items() if name != "upstream"]
    wanted = [values[name] for name in directions]
    if not all(value.requires_grad for value in wanted):
        return torch.zeros(())
    first = torch.autograd.grad(
        function(*arguments), wanted, values["upstream"],
        create_graph=True, allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    products = [(g * d).sum() for g, d in zip(first, directions.values(), strict=True)]
    return torch.stack(products).sum()


def _can_be_differentiated_twice(apply: Callable[..., Tensor], values: Values) -> bool:
    """Whether the Function's backward can itself be differentiated (not `once_differentiable`)."""
    with torch.enable_grad():
        leaves = _leaves({name: copy_of(value) for name, value in values.items()})
        arguments = [leaf for name, leaf in leaves.items() if name != "upstream"]
        wanted = [leaf for leaf in arguments if leaf.requires_grad]
        output = apply(*arguments)
        if not output.requires_grad:
            raise TwinError("autograd cannot follow `apply`: its result has no grad_fn.")
        first = torch.autograd.grad(
            output, wanted, leaves["upstream"], create_graph=True, allow_unused=True
        )
        moving = [gradient.sum() for gradient in first if gradient is not None]
        moving = [gradient for gradient in moving if gradient.requires_grad]
        if not moving:
            return False
        try:
            torch.autograd.backward(torch.stack(moving).sum())
        except RuntimeError:  # "trying to differentiate twice a function marked with ..."
            return False
    return True
