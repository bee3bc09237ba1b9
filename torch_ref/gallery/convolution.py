"""Layers that slide a window: convolution with stride and padding, and overlapping max-pooling."""

import torch
from torch import nn

from torch_ref.compare.twin import Draw, Twin, Values

STRIDE = 2  # of both layers
PADDING = 1  # of the convolution, on either side
WINDOW = 3  # of the max-pooling: neighbours share an element


def conv1d_inputs(draw: Draw) -> Values:
    """x (batch, channels, length), w (filters, channels, kernel), b (filters,),
    dL/dy (batch, filters, outputs).
    """
    batch, channels, length = draw.size(2, 3), draw.size(2, 3), draw.size(2, 7)
    filters, kernel = draw.size(2, 5), draw.size(2, 3)
    outputs = (length + 2 * PADDING - kernel) // STRIDE + 1
    return {
        "x": draw.normal(shape=(batch, channels, length)),
        "w": draw.normal(shape=(filters, channels, kernel)),
        "b": draw.normal(shape=(filters,)),
        "upstream": draw.normal(shape=(batch, filters, outputs)),
    }


def conv1d(values: Values) -> Values:
    """y[n, f, l] = b[f] + sum_ck w[f, c, k] padded[n, c, STRIDE l + k]."""
    y = nn.functional.conv1d(values["x"], values["w"], values["b"], STRIDE, PADDING)
    return {"y": y, "loss": (y * values["upstream"]).sum()}  # y (batch, filters, outputs)


def conv1d_backward(values: Values) -> Values:
    """A convolution is a matrix product with the windows of x; where these overlap, they add up.

    Source: Dumoulin and Visin, A guide to convolution arithmetic (2016), arXiv:1603.07285,
    section 4.
    """
    x, w, dy = (values[name] for name in ("x", "w", "upstream"))
    starts = STRIDE * torch.arange(dy.shape[-1], device=x.device)  # (outputs,)
    taps = torch.arange(w.shape[-1], device=x.device)  # (kernel,)
    padded = nn.functional.pad(x, (PADDING, PADDING))  # (batch, channels, length + 2 PADDING)
    windows = padded[:, :, starts[:, None] + taps]  # (batch, channels, outputs, kernel)

    db = dy.sum((0, 2))  # (filters,)
    dw = torch.einsum("nfl,nclk->fck", dy, windows)  # (filters, channels, kernel)
    dwindows = torch.einsum("nfl,fck->nclk", dy, w)  # (batch, channels, outputs, kernel)
    dpadded = torch.zeros_like(padded)  # (batch, channels, length + 2 PADDING)
    for tap in range(w.shape[-1]):
        dpadded = dpadded.index_add(2, starts + tap, dwindows[..., tap])
    dx = dpadded[..., PADDING : PADDING + x.shape[-1]]  # (batch, channels, length)
    return {"y": dy, "b": db, "w": dw, "x": dx}


conv1d_twin = Twin("conv1d", conv1d_inputs, conv1d, conv1d_backward)


def max_pool_inputs(draw: Draw) -> Values:
    """x (batch, channels, length) and dL/dy (batch, channels, outputs).

    x is whole, so that many a window holds its maximum twice.
    """
    batch, channels, length = draw.size(2, 3), draw.size(2, 3), draw.size(WINDOW, 7)
    outputs = (length - WINDOW) // STRIDE + 1
    return {
        "x": draw.integers(-3, 4, (batch, channels, length)).to(draw.dtype),
        "upstream": draw.normal(shape=(batch, channels, outputs)),
    }


def max_pool(values: Values) -> Values:
    """y[n, c, l] = max_k x[n, c, STRIDE l + k], k < WINDOW."""
    y = nn.functional.max_pool1d(values["x"], WINDOW, STRIDE)  # (batch, channels, outputs)
    return {"y": y, "loss": (y * values["upstream"]).sum()}


def max_pool_backward(values: Values) -> Values:
    """The first maximum of a window gets all of its gradient, as in torch; overlaps add up.

    Source: Goodfellow, Bengio and Courville, Deep Learning (2016), section 9.3.
    """
    x, dy = values["x"], values["upstream"]
    starts = STRIDE * torch.arange(dy.shape[-1], device=x.device)  # (outputs,)
    taps = torch.arange(WINDOW, device=x.device)  # (WINDOW,)
    windows = x[:, :, starts[:, None] + taps]  # (batch, channels, outputs, WINDOW)
    first = windows.argmax(-1, keepdim=True)  # (batch, channels, outputs, 1)

    dwindows = (taps == first) * dy[..., None]  # (batch, channels, outputs, WINDOW)
    dx = torch.zeros_like(x)  # (batch, channels, length)
    for tap in range(WINDOW):
        dx = dx.index_add(2, starts + tap, dwindows[..., tap])
    return {"y": dy, "x": dx}


max_pool_twin = Twin("max-pooling", max_pool_inputs, max_pool, max_pool_backward)
