"""What is compared: a Twin, and the Draw that makes its random cases."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Values = dict[str, Tensor]
Shape = tuple[int, ...]

# What the harness does to every twin's inputs of its own accord; see `torch_ref.compare.stress`.
STRESS = (
    "scaled up",
    "scaled down",
    "mixed scales",
    "tied",
    "zeros",
    "grid",
    "equal",
    "strided",
    "expanded",
)


class TwinError(ValueError):
    """A twin that cannot be judged as it stands; the message is one clear sentence."""


@dataclass(frozen=True)
class Draw:
    """Random numbers for some cases, the same on every device and for every dtype.

    Each helper draws float64 numbers from `generator` on the CPU and only then casts to `dtype` and
    moves to `device`. Without a shape it draws one number a case, shape (cases,); a shape is taken
    as it is. `stratum` is the kind of place the cases shall reach.
    """

    generator: np.random.Generator
    dtype: torch.dtype
    device: torch.device
    cases: int
    stratum: str
    sizes: Callable[[int, int], int]

    def normal(self, mean: float = 0.0, std: float = 1.0, shape: Shape | None = None) -> Tensor:
        """Normal numbers of the twin's dtype."""
        _must_be_numbers("normal", mean=mean, std=std)
        return self.cast(self.generator.normal(mean, std, self._shape(shape)))

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: Shape | None = None) -> Tensor:
        """Uniform numbers in [low, high) of the twin's dtype."""
        _must_be_numbers("uniform", low=low, high=high)
        return self.cast(self.generator.uniform(low, high, self._shape(shape)))

    def log_normal(self, mean: float = 0.0, std: float = 1.0, shape: Shape | None = None) -> Tensor:
        """exp of normal numbers, in the twin's dtype."""
        _must_be_numbers("log_normal", mean=mean, std=std)
        return self.cast(self.generator.lognormal(mean, std, self._shape(shape)))

    def integers(self, low: int, high: int, shape: Shape | None = None) -> Tensor:
        """Integers in [low, high) as int64."""
        _must_be_numbers("integers", low=low, high=high)
        numbers = self.generator.integers(low, high, self._shape(shape))
        return torch.as_tensor(numbers).to(self.device)

    def booleans(self, probability: float = 0.5, shape: Shape | None = None) -> Tensor:
        """True with this probability, as bool."""
        _must_be_numbers("booleans", probability=probability)
        numbers = self.generator.random(self._shape(shape)) < probability
        return torch.as_tensor(numbers).to(self.device)

    def size(self, low: int, high: int) -> int:
        """The size of an axis, low to high inclusive: another one in other cases of a run.

        Few sets of sizes take turns, since each means recording the graphs anew.
        Raises TwinError where low is above high.
        """
        if low > high:
            raise TwinError(f"draw.size({low}, {high}): the smallest size comes first.")
        return self.sizes(low, high)

    def cast(self, numbers: np.ndarray[Any, np.dtype[np.float64]] | Tensor | float) -> Tensor:
        """Numbers drawn from `generator` directly, in `dtype` on `device`."""
        return torch.as_tensor(numbers, dtype=torch.float64).to(self.dtype).to(self.device)

    def _shape(self, shape: Shape | None) -> Shape:
        return (self.cases,) if shape is None else shape


def _must_be_numbers(helper: str, **given: Any) -> None:
    """Raise TwinError for a shape where a number is wanted."""
    for name, value in given.items():
        if isinstance(value, (tuple, list)):
            raise TwinError(
                f"draw.{helper}: {name} must be a number; got {value!r}. Give a shape by its name: "
                f"draw.{helper}(shape={tuple(value)})."
            )


def uniform(generator: np.random.Generator, low: float, high: float, shape: int | Shape) -> Tensor:
    """The numbers of generator.uniform, float64 on the CPU, in two thirds of the time."""
    return torch.as_tensor(generator.random(shape)).mul_(high - low).add_(low)


def power_of_ten(
    generator: np.random.Generator, low: float, high: float, shape: int | Shape
) -> Tensor:
    """Numbers from 10^low to 10^high, log-uniform; torch's 10 ** x takes five times as long."""
    return uniform(generator, low, high, shape).mul_(math.log(10)).exp_()


@dataclass(frozen=True)
class Twin:
    """A backward pass written by hand beside a reference that autograd differentiates.

    inputs(draw): tensors by name: floating ones, which have gradients, and others (integers, bool).
    reference(values): plain differentiable torch on those inputs; returns named intermediates and
        "loss".
    manual(values): hand-written dL/d(name), names being inputs or intermediates, in the order in
        which they were derived. It may leave names out.
    strata: the kinds of cases `inputs` can make, by turns; `dataclasses.replace` picks some.
    stress: what the harness does to the inputs of its own accord, by turns with `strata`; () for
        nothing.
    notes(): what the report says besides, asked for after each case; failures(): what it counts as
        wrong besides the numbers.

    A loss of shape () makes it a *one-case* twin: `inputs` draws one case, each tensor of the shape
    it has in real life. A loss of shape (cases,) makes it a *batched* twin: `draw.cases`
    independent cases, in the first dimension of every tensor.
    """

    name: str
    inputs: Callable[[Draw], Values]
    reference: Callable[[Values], Values]
    manual: Callable[[Values], Values]
    strata: tuple[str, ...] = ("ordinary",)
    stress: tuple[str, ...] = STRESS
    notes: Callable[[], Sequence[str]] = tuple
    failures: Callable[[], Sequence[str]] = tuple

    @staticmethod
    def from_module(
        module: torch.nn.Module,
        loss: Callable[[Tensor, Values], Tensor],
        manual: Callable[[Values], Values],
        inputs: Callable[[Draw], Values],
        *,
        name: str | None = None,
    ) -> "Twin":
        """A twin whose reference is a copy of a module, which stays as it is.

        module: its parameters go by the names of `named_parameters`, every submodule's output
            (where it is one floating tensor) by the submodule's path, "encoder.0", and the module's
            own output by "output" ("module output" if something else of the module is called
            "output"). Where a submodule is called several times, its first call goes by the path
            alone and the others by "encoder.0 (2)", "encoder.0 (3)" and so on, in the order of the
            calls.
        loss(output, values): the loss, from the module's output and all inputs; shape () for a
            one-case twin.
        manual(values): hand-written gradients; values holds inputs and parameters.
        inputs(draw): the arguments of the module's `forward` by their names, and whatever else the
            loss needs. A parameter that it does not give is drawn around the module's own numbers:
            with normal noise as large as their root mean square, or 1 where they are all 0. A
            buffer that it does not give, and an integer parameter, has the module's own numbers, in
            float64.

        A compiled module is run as it was written.

        Raises TwinError for what is no module, or has parameters without numbers or complex ones,
        and where two things have one name: an argument, a parameter or buffer, a submodule, "loss".
        """
        from torch_ref.compare.from_module import from_module

        return from_module(module, loss, manual, inputs, name=name)

    @staticmethod
    def from_function(
        apply: Callable[..., Tensor | Sequence[Tensor]],
        reference: Callable[..., Tensor | Sequence[Tensor]],
        inputs: Callable[[Draw], Values],
        *,
        name: str | None = None,
    ) -> "Twin":
        """A one-case twin of a custom `torch.autograd.Function`, or a kernel with its own backward.

        apply(*tensors): the Function's `apply`, called with the tensors of `inputs` in their order;
            a tensor comes out, or a tuple of them. Its gradients come from running autograd
            *through* it, from a random upstream gradient: the input "upstream" (and "upstream 2",
            "upstream 3" ... for further floating tensors), laid out in memory in all ways that the
            stresses know.
        reference(*tensors): the same in plain differentiable torch.
        inputs(draw): the tensors of one case, by name.

        Double backward is checked as well: "x (twice)" is x once more, and its gradient that of the
        inner product of dL/dx with a random direction; where the gradients of neither side depend
        on x, there is none. Saved intermediates make it silently wrong (pytorch/pytorch#76185). A
        Function that torch cannot differentiate twice (`once_differentiable`, a backward that
        autograd does not record, an operation in it without a derivative) does not claim these
        gradients: the report says why, and has them among those that are not given.

        What training code does besides is tried at the first draw (see
        `torch_ref.compare.functions.contract`): one argument that requires grad and the others
        frozen, one frozen and the others not, one output with an upstream gradient and none for the
        others, a second backward, another call between forward and backward, or after both.
        That, and a call that changes its arguments or the upstream gradient in place, is wrong as
        numbers are.

        Raises TwinError for what cannot be called, and, at the first draw, where apply, its
        backward or double backward, or reference raise, where they return different shapes, and
        where inputs uses a name that is made here.
        """
        from torch_ref.compare.functions.twins import from_function

        return from_function(apply, reference, inputs, name=name)
