"""The assignment network and its loss as plain nn.Modules, for autograd and for any experiment."""

import torch
from torch import Tensor, nn


class AssignmentNet(nn.Module):
    """The assignment's network, 2 inputs to 1 positive output, with 11 scalar parameters.

        z3 = w13 x1 + w23 x2 + b3            x3 = sigma(z3)
        z4 = w34 x3 + b4                     x4 = sigma(z4)
        z5 = w35 x3 + b5                     x5 = sigma(z5)
        z6 = w36 x3 + w46 x4 + w56 x5 + b6   x6 = z6^2

    Parameters have shape () and the assignment's names, so `state_dict()` is a parameter dict of
    `manual_bp`, and the other way round. `dtype` and `device` are as in torch's own modules.
    """

    def __init__(
        self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> None:
        super().__init__()

        def scalar() -> nn.Parameter:
            return nn.Parameter(torch.empty((), dtype=dtype, device=device))

        self.w13, self.w23, self.b3 = scalar(), scalar(), scalar()
        self.w34, self.b4 = scalar(), scalar()
        self.w35, self.b5 = scalar(), scalar()
        self.w36, self.w46, self.w56, self.b6 = scalar(), scalar(), scalar(), scalar()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew; z6 then starts above 1/2: at 0 the loss is infinite.

        w36, w46 and w56 are uniform in [0.1, 1), b6 in [0.5, 1), the others standard normal.
        """
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_()
            for weight in (self.w36, self.w46, self.w56):
                weight.uniform_(0.1, 1.0)
            self.b6.uniform_(0.5, 1.0)

    def intermediates(self, x: Tensor) -> dict[str, Tensor]:
        """Every named value for x of shape (..., 2): z3, x3, z4, x4, z5, x5, z6, x6, each (...).

        Raises ValueError for another shape of x.
        """
        if x.ndim == 0 or x.shape[-1] != 2:
            raise ValueError(f"x must have shape (..., 2): x1 and x2 last; got {tuple(x.shape)}.")
        x1, x2 = x.unbind(-1)
        z3 = self.w13 * x1 + self.w23 * x2 + self.b3
        x3 = torch.sigmoid(z3)
        z4 = self.w34 * x3 + self.b4
        x4 = torch.sigmoid(z4)
        z5 = self.w35 * x3 + self.b5
        x5 = torch.sigmoid(z5)
        z6 = self.w36 * x3 + self.w46 * x4 + self.w56 * x5 + self.b6
        x6 = z6 * z6
        return {"z3": z3, "x3": x3, "z4": z4, "x4": x4, "z5": z5, "x5": x5, "z6": z6, "x6": x6}

    def forward(self, x: Tensor) -> Tensor:
        """x6 of shape (...) for x of shape (..., 2); ValueError for another shape."""
        return self.intermediates(x)["x6"]

    def extra_repr(self) -> str:
        """The layers, dtype and device, for `print(net)`."""
        return f"2 -> x3 -> (x4, x5) -> x6, dtype={self.w13.dtype}, device={self.w13.device}"


class ItakuraSaitoLoss(nn.Module):
    """Itakura-Saito divergence t/x - ln(t/x) - 1, x > 0 and t > 0; QLIKE in volatility forecasts.

    `reduction`: "mean" (default), "sum" or "none", as in torch's own losses.

    Values are not checked, as in torch's own losses: a look at them would make the GPU wait. t < 0
    or x < 0 gives NaN (both at once pass for positive), t = 0 infinity, x = 0 NaN; the mean of an
    empty batch is NaN, its sum 0.
    Fevotte, Bertin, Durrieu, Neural Computation 21(3), 2009.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f'reduction must be "mean", "sum" or "none"; got {reduction!r}.')
        self.reduction = reduction

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The divergence of the target t from the output x, which broadcast; () unless "none"."""
        ratio = t / x
        loss = ratio - torch.log(ratio) - 1
        if self.reduction == "mean":
            return loss.mean()
        return loss.sum() if self.reduction == "sum" else loss

    def extra_repr(self) -> str:
        """The reduction, for `print(loss)`."""
        return f"reduction={self.reduction!r}"
