"""Recurrent layers: the LSTM and GRU cells of torch.nn, and a tanh network over three steps."""

import torch
from torch import Tensor

from torch_ref.compare.twin import Draw, Twin, Values


def sigmoid_derivative(z: Tensor) -> Tensor:
    """sigma'(z) = sigma(z) sigma(-z), shape of z: no 1 - sigma(z), which cancels."""
    return torch.sigmoid(z) * torch.sigmoid(-z)


def tanh_derivative(z: Tensor) -> Tensor:
    """tanh'(z) = 4 sigma'(2 z), shape of z: no 1 - tanh(z)^2, which cancels."""
    return 4 * sigmoid_derivative(2 * z)


def lstm_inputs(draw: Draw) -> Values:
    """x (batch, width), h and c (batch, hidden), w_x (4 hidden, width), w_h (4 hidden, hidden),
    b (4 hidden,), dL/dh_new and, from the next step, dL/dc_new (batch, hidden).
    """
    batch, width, hidden = draw.size(2, 5), draw.size(2, 5), draw.size(2, 5)
    return {
        "x": draw.normal(shape=(batch, width)),
        "h": draw.normal(shape=(batch, hidden)),
        "c": draw.normal(shape=(batch, hidden)),
        "w_x": draw.normal(shape=(4 * hidden, width)),
        "w_h": draw.normal(shape=(4 * hidden, hidden)),
        "b": draw.normal(shape=(4 * hidden,)),
        "upstream": draw.normal(shape=(batch, hidden)),
        "upstream_c": draw.normal(shape=(batch, hidden)),
    }


def lstm(values: Values) -> Values:
    """c_new = f c + i g, h_new = o tanh(c_new); gates in torch's order i, f, g, o."""
    z = values["x"] @ values["w_x"].mT + values["h"] @ values["w_h"].mT + values["b"]
    z_i, z_f, z_g, z_o = z.chunk(4, dim=-1)  # (batch, hidden)
    i, f, g, o = z_i.sigmoid(), z_f.sigmoid(), z_g.tanh(), z_o.sigmoid()  # (batch, hidden)
    c_new = f * values["c"] + i * g  # (batch, hidden)
    h_new = o * c_new.tanh()  # (batch, hidden)
    loss = (h_new * values["upstream"]).sum() + (c_new * values["upstream_c"]).sum()
    return {
        "z": z, "z_i": z_i, "z_f": z_f, "z_g": z_g, "z_o": z_o,
        "i": i, "f": f, "g": g, "o": o, "c_new": c_new, "h_new": h_new, "loss": loss,
    }  # fmt: skip


def lstm_backward(values: Values) -> Values:
    """h_new = o tanh(c_new), c_new = f c + i g: c_new feeds what comes after and h_new.

    Source: Hochreiter and Schmidhuber, Long Short-Term Memory (1997); forget gate: Gers,
    Schmidhuber and Cummins, Learning to Forget (2000).
    """
    x, h, c, w_x, w_h = (values[name] for name in ("x", "h", "c", "w_x", "w_h"))
    z = x @ w_x.mT + h @ w_h.mT + values["b"]  # (batch, 4 hidden)
    z_i, z_f, z_g, z_o = z.chunk(4, dim=-1)  # (batch, hidden)
    i, f, g, o = z_i.sigmoid(), z_f.sigmoid(), z_g.tanh(), z_o.sigmoid()  # (batch, hidden)
    c_new = f * c + i * g  # (batch, hidden)

    dh_new = values["upstream"]  # (batch, hidden)
    do = dh_new * c_new.tanh()  # (batch, hidden)
    dc_new = values["upstream_c"] + dh_new * o * tanh_derivative(c_new)  # (batch, hidden)
    di = dc_new * g  # (batch, hidden)
    df = dc_new * c  # (batch, hidden)
    dg = dc_new * i  # (batch, hidden)
    dc = dc_new * f  # (batch, hidden)
    dz_i = di * sigmoid_derivative(z_i)  # (batch, hidden)
    dz_f = df * sigmoid_derivative(z_f)  # (batch, hidden)
    dz_g = dg * tanh_derivative(z_g)  # (batch, hidden)
    dz_o = do * sigmoid_derivative(z_o)  # (batch, hidden)
    dz = torch.cat((dz_i, dz_f, dz_g, dz_o), dim=-1)  # (batch, 4 hidden)
    dw_x = dz.mT @ x  # (4 hidden, width)
    dw_h = dz.mT @ h  # (4 hidden, hidden)
    db = dz.sum(0)  # (4 hidden,)
    dx = dz @ w_x  # (batch, width)
    dh = dz @ w_h  # (batch, hidden)
    return {
        "h_new": dh_new, "o": do, "c_new": dc_new, "i": di, "f": df, "g": dg, "c": dc,
        "z_i": dz_i, "z_f": dz_f, "z_g": dz_g, "z_o": dz_o,
        "z": dz, "w_x": dw_x, "w_h": dw_h, "b": db, "x": dx, "h": dh,
    }  # fmt: skip


lstm_twin = Twin("LSTM cell", lstm_inputs, lstm, lstm_backward)


def gru_inputs(draw: Draw) -> Values:
    """x (batch, width), h and dL/dh_new (batch, hidden), w_x (3 hidden, width),
    w_h (3 hidden, hidden), b_x and b_h (3 hidden,).
    """
    batch, width, hidden = draw.size(2, 5), draw.size(2, 5), draw.size(2, 5)
    return {
        "x": draw.normal(shape=(batch, width)),
        "h": draw.normal(shape=(batch, hidden)),
        "w_x": draw.normal(shape=(3 * hidden, width)),
        "b_x": draw.normal(shape=(3 * hidden,)),
        "w_h": draw.normal(shape=(3 * hidden, hidden)),
        "b_h": draw.normal(shape=(3 * hidden,)),
        "upstream": draw.normal(shape=(batch, hidden)),
    }


def gru(values: Values) -> Values:
    """h_new = (1 - z) n + z h; gates in torch's order r, z, n, where r scales what n sees of h."""
    h = values["h"]
    from_x = values["x"] @ values["w_x"].mT + values["b_x"]  # (batch, 3 hidden)
    from_h = h @ values["w_h"].mT + values["b_h"]  # (batch, 3 hidden)
    x_r, x_z, x_n = from_x.chunk(3, dim=-1)  # (batch, hidden)
    h_r, h_z, h_n = from_h.chunk(3, dim=-1)  # (batch, hidden)
    a_r, a_z = x_r + h_r, x_z + h_z  # (batch, hidden)
    r, z = a_r.sigmoid(), a_z.sigmoid()  # (batch, hidden)
    a_n = x_n + r * h_n  # (batch, hidden)
    n = a_n.tanh()  # (batch, hidden)
    h_new = (1 - z) * n + z * h  # (batch, hidden)
    return {
        "from_x": from_x, "from_h": from_h, "a_r": a_r, "a_z": a_z, "r": r, "z": z,
        "a_n": a_n, "n": n, "h_new": h_new, "loss": (h_new * values["upstream"]).sum(),
    }  # fmt: skip


def gru_backward(values: Values) -> Values:
    """h_new = (1 - z) n + z h, n = tanh(a_n), a_n = x_n + r h_n: h goes past the gates, too.

    Source: Cho et al. (2014), arXiv:1406.1078, section 2.3, with r where torch.nn.GRUCell has it.
    """
    x, h, w_x, w_h = (values[name] for name in ("x", "h", "w_x", "w_h"))
    x_r, x_z, x_n = (x @ w_x.mT + values["b_x"]).chunk(3, dim=-1)  # (batch, hidden)
    h_r, h_z, h_n = (h @ w_h.mT + values["b_h"]).chunk(3, dim=-1)  # (batch, hidden)
    a_r, a_z = x_r + h_r, x_z + h_z  # (batch, hidden)
    r, z = a_r.sigmoid(), a_z.sigmoid()  # (batch, hidden)
    a_n = x_n + r * h_n  # (batch, hidden)
    n = a_n.tanh()  # (batch, hidden)

    dh_new = values["upstream"]  # (batch, hidden)
    dz = dh_new * (h - n)  # (batch, hidden)
    dn = dh_new * torch.sigmoid(-a_z)  # (batch, hidden): 1 - z without its cancellation
    da_n = dn * tanh_derivative(a_n)  # (batch, hidden)
    dr = da_n * h_n  # (batch, hidden)
    da_r = dr * sigmoid_derivative(a_r)  # (batch, hidden)
    da_z = dz * sigmoid_derivative(a_z)  # (batch, hidden)
    dfrom_x = torch.cat((da_r, da_z, da_n), dim=-1)  # (batch, 3 hidden)
    dfrom_h = torch.cat((da_r, da_z, da_n * r), dim=-1)  # (batch, 3 hidden)
    dw_x = dfrom_x.mT @ x  # (3 hidden, width)
    db_x = dfrom_x.sum(0)  # (3 hidden,)
    dw_h = dfrom_h.mT @ h  # (3 hidden, hidden)
    db_h = dfrom_h.sum(0)  # (3 hidden,)
    dx = dfrom_x @ w_x  # (batch, width)
    dh = dh_new * z + dfrom_h @ w_h  # (batch, hidden): past the gates and through them
    return {
        "h_new": dh_new, "z": dz, "n": dn, "a_n": da_n, "r": dr, "a_r": da_r, "a_z": da_z,
        "from_x": dfrom_x, "from_h": dfrom_h,
        "w_x": dw_x, "b_x": db_x, "w_h": dw_h, "b_h": db_h, "x": dx, "h": dh,
    }  # fmt: skip


gru_twin = Twin("GRU cell", gru_inputs, gru, gru_backward)


def rnn_inputs(draw: Draw) -> Values:
    """x (3, batch, width), h0 (batch, hidden), w_x (hidden, width), w_h (hidden, hidden),
    b (hidden,), dL/dh of every step from its own output (3, batch, hidden).
    """
    batch, width, hidden = draw.size(2, 5), draw.size(2, 5), draw.size(2, 5)
    return {
        "x": draw.normal(shape=(3, batch, width)),
        "h0": draw.normal(shape=(batch, hidden)),
        "w_x": draw.normal(shape=(hidden, width)),
        "w_h": draw.normal(shape=(hidden, hidden)),
        "b": draw.normal(shape=(hidden,)),
        "upstream": draw.normal(shape=(3, batch, hidden)),
    }


def rnn(values: Values) -> Values:
    """h_t = tanh(a_t), a_t = x_t w_x^T + h_(t-1) w_h^T + b for t = 1, 2, 3; the same weights."""
    named: Values = {}
    h = values["h0"]
    for t, x in enumerate(values["x"], start=1):
        a = x @ values["w_x"].mT + h @ values["w_h"].mT + values["b"]  # (batch, hidden)
        h = a.tanh()  # (batch, hidden)
        named |= {f"a{t}": a, f"h{t}": h}
    h_all = torch.stack([named["h1"], named["h2"], named["h3"]])  # (3, batch, hidden)
    return {**named, "loss": (h_all * values["upstream"]).sum()}


def rnn_backward(values: Values) -> Values:
    """h_t feeds the loss and a_(t+1); every step adds to the gradients of the shared weights.

    Source: Werbos, Backpropagation Through Time, Proc. IEEE 78(10), 1990; the net: Elman (1990).
    """
    h0, w_x, w_h, b = (values[name] for name in ("h0", "w_x", "w_h", "b"))
    x1, x2, x3 = values["x"]  # (batch, width)
    a1 = x1 @ w_x.mT + h0 @ w_h.mT + b  # (batch, hidden)
    h1 = a1.tanh()  # (batch, hidden)
    a2 = x2 @ w_x.mT + h1 @ w_h.mT + b  # (batch, hidden)
    h2 = a2.tanh()  # (batch, hidden)
    a3 = x3 @ w_x.mT + h2 @ w_h.mT + b  # (batch, hidden)

    dy1, dy2, dy3 = values["upstream"]  # (batch, hidden)
    dh3 = dy3  # (batch, hidden)
    da3 = dh3 * tanh_derivative(a3)  # (batch, hidden)
    dh2 = dy2 + da3 @ w_h  # (batch, hidden)
    da2 = dh2 * tanh_derivative(a2)  # (batch, hidden)
    dh1 = dy1 + da2 @ w_h  # (batch, hidden)
    da1 = dh1 * tanh_derivative(a1)  # (batch, hidden)
    dh0 = da1 @ w_h  # (batch, hidden)
    dw_x = da3.mT @ x3 + da2.mT @ x2 + da1.mT @ x1  # (hidden, width)
    dw_h = da3.mT @ h2 + da2.mT @ h1 + da1.mT @ h0  # (hidden, hidden)
    db = da3.sum(0) + da2.sum(0) + da1.sum(0)  # (hidden,)
    dx = torch.stack((da1 @ w_x, da2 @ w_x, da3 @ w_x))  # (3, batch, width)
    return {
        "h3": dh3, "a3": da3, "h2": dh2, "a2": da2, "h1": dh1, "a1": da1, "h0": dh0,
        "w_x": dw_x, "w_h": dw_h, "b": db, "x": dx,
    }  # fmt: skip


rnn_twin = Twin("three-step RNN", rnn_inputs, rnn, rnn_backward)
