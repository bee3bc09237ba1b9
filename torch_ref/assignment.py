"""The assignment's twin: `manual_bp` and `AssignmentNet` meet here and nowhere else."""

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

import manual_bp
from torch_ref.compare.twin import Draw, Twin, Values, power_of_ten
from torch_ref.module import AssignmentNet, ItakuraSaitoLoss

STRATA = ("ordinary", "z6 near 0", "t near z6^2", "saturated", "tiny", "huge")


def assignment_twin() -> Twin:
    """The hand-written backward pass of `manual_bp` beside autograd through `AssignmentNet`.

    Every case has its own random parameters; the strata are the names in STRATA, by turns.
    """
    named = _Named()

    def reference(values: Values) -> Values:
        parameters = {f"net.{name}": values[name] for name in manual_bp.PARAMETERS}
        inputs = (values["x1"], values["x2"], values["t"])
        result: Values = functional_call(named, parameters, inputs)
        return result

    return Twin("assignment", assignment_inputs, reference, _manual, STRATA)


class _Named(nn.Module):
    """The network and its loss, giving every named value."""

    def __init__(self) -> None:
        super().__init__()
        self.net = AssignmentNet(dtype=torch.float64)
        self.loss = ItakuraSaitoLoss(reduction="none")

    def forward(self, x1: Tensor, x2: Tensor, t: Tensor) -> Values:
        values = self.net.intermediates(torch.stack((x1, x2), dim=-1))
        return {**values, "loss": self.loss(values["x6"], t)}


def manual_values(values: Values, loss: bool = True) -> Values:
    """Every value of the hand-written forward pass on a case's inputs and parameters."""
    inputs = {name: values[name] for name in manual_bp.INPUTS}
    return manual_bp.forward(_parameters(values), inputs, check_values=False, loss=loss)


def _manual(values: Values) -> Values:
    known = manual_values(values, loss=False)
    return manual_bp.backward(_parameters(values), known, check_values=False)


def _parameters(values: Values) -> Values:
    return {name: values[name] for name in manual_bp.PARAMETERS}


def assignment_inputs(draw: Draw) -> Values:
    """Inputs and parameters of `draw.cases` cases, each tensor of shape (cases,), for one stratum.

    ordinary: weights of size 1/2 to 2 and either sign, z6 and t/x6 away from 0 and from 1, the
        three paths into dL/dx3 not cancelling;
    z6 near 0: b6 set so that z6 is 10^-1 to 10^-8 of its terms;
    t near z6^2: t within 10^-1 to 10^-15, relatively, of x6;
    saturated: z3, z4, z5 of size up to 700;
    tiny, huge: z6 from 1 down or up to the dtype's range to the power 1/10, t likewise squared.
    """
    make = {
        "ordinary": _ordinary,
        "z6 near 0": _small_z6,
        "t near z6^2": _t_near_x6,
        "saturated": _saturated,
        "tiny": _tiny,
        "huge": _huge,
    }
    return {name: draw.cast(value) for name, value in make[draw.stratum](draw).items()}


def _signed(draw: Draw, low: float = 0.5, high: float = 2.0, rows: int | None = None) -> Tensor:
    """Numbers of either sign whose size is log-uniform between low and high, float64 on the CPU.

    One a case, or with `rows` so many: shape (rows, cases), in fewer operations than one by one.
    """
    numbers = _uniform(draw, rows)
    return _logarithm_of_size(numbers, low, high).exp_().copysign_(numbers)


def _uniform(draw: Draw, rows: int | None = None) -> Tensor:
    """Numbers in [-1/2, 1/2): the sign of what is drawn, and where it lies between its limits."""
    shape = (draw.cases,) if rows is None else (rows, draw.cases)
    return torch.as_tensor(draw.generator.random(shape)).sub_(0.5)


def _logarithm_of_size(numbers: Tensor, low: float, high: float) -> Tensor:
    return numbers.abs().mul_(2 * math.log(high / low)).add_(math.log(low))


def _without_z6(draw: Draw) -> Values:
    """Random x1, x2 and parameters; b6 and t wait until z6 is chosen."""
    names = ("x1", "x2", *(name for name in manual_bp.PARAMETERS if name != "b6"))
    return dict(zip(names, _signed(draw, rows=len(names)).unbind(), strict=True))


def _with_z6(values: Values, z6: Tensor, ratio: Tensor) -> Values:
    """b6 and t added so that z6 and t/x6 come out as wanted, up to rounding."""
    return _ended(values, _hidden(values), z6, ratio)


def _ended(values: Values, hidden: tuple[Tensor, ...], z6: Tensor, ratio: Tensor) -> Values:
    """The same where x3, x4 and x5 are known."""
    x3, x4, x5 = hidden
    paths = (values["w36"] * x3).addcmul_(values["w46"], x4).addcmul_(values["w56"], x5)
    return {**values, "b6": z6 - paths, "t": ratio * z6 * z6}


def _hidden(values: Values) -> tuple[Tensor, ...]:
    """x3, x4 and x5. Not by `manual_bp.forward`, whose checks would take most of the time."""
    z3 = torch.addcmul(values["b3"], values["w13"], values["x1"])
    x3 = z3.addcmul_(values["w23"], values["x2"]).sigmoid_()
    x4, x5 = (torch.addcmul(values[f"b{n}"], values[f"w3{n}"], x3).sigmoid_() for n in (4, 5))
    return x3, x4, x5


def _far_from_one(draw: Draw) -> Tensor:
    """Ratios t/x6 in [1/8, 1/1.25] and [1.25, 8]."""
    numbers = _uniform(draw)
    return _logarithm_of_size(numbers, 1.25, 8).copysign_(numbers).exp_()


def _ordinary(draw: Draw) -> Values:
    values = _without_z6(draw)
    hidden = _hidden(values)
    values["w36"] = _not_cancelling(values, hidden)
    return _ended(values, hidden, _signed(draw), _far_from_one(draw))


def _not_cancelling(values: Values, hidden: tuple[Tensor, ...]) -> Tensor:
    """w36 with its sign turned where the paths through nodes 4 and 5 would cancel half of it."""
    _, x4, x5 = hidden
    paths = values["w34"] * values["w46"] * x4 * (1 - x4)
    paths += values["w35"] * values["w56"] * x5 * (1 - x5)
    w36 = values["w36"]
    return torch.where((w36 + paths).abs() < w36.abs() / 2, -w36, w36)


def _small_z6(draw: Draw) -> Values:
    z6 = _signed(draw) * power_of_ten(draw.generator, -8, -1, draw.cases)
    values = _with_z6(_without_z6(draw), z6, _far_from_one(draw))
    return {**values, "t": power_of_ten(draw.generator, -1, 1, draw.cases)}


def _t_near_x6(draw: Draw) -> Values:
    deviation = _signed(draw) * power_of_ten(draw.generator, -15, -1, draw.cases)
    return _with_z6(_without_z6(draw), _signed(draw), 1 + deviation)


def _saturated(draw: Draw) -> Values:
    values = _without_z6(draw)
    for bias in ("b3", "b4", "b5"):
        values[bias] = _signed(draw, 1, 700)
    return _with_z6(values, _signed(draw), _far_from_one(draw))


def _tiny(draw: Draw) -> Values:
    scale = _scale(draw, -1)
    values = {name: value * scale for name, value in _without_z6(draw).items()}
    return _with_z6(values, _signed(draw) * scale, _far_from_one(draw))


def _huge(draw: Draw) -> Values:
    values = _without_z6(draw)
    scale = _scale(draw, 1)
    for name in ("w36", "w46", "w56"):
        values[name] = values[name] * scale
    return _with_z6(values, _signed(draw) * scale, _far_from_one(draw))


def _scale(draw: Draw, sign: int) -> Tensor:
    """Powers of ten from 1 to the tenth part of the dtype's exponents, the same draws for all."""
    decades = math.log10(torch.finfo(draw.dtype).max) / 10
    return power_of_ten(draw.generator, 0, sign * decades, draw.cases)
