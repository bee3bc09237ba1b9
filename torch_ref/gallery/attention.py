"""Attention with a mask and grouped heads, and the rotary position embedding of its inputs."""

import math

import torch

from torch_ref.compare.twin import Draw, Twin, Values


def attention_inputs(draw: Draw) -> Values:
    """q and dL/dy (heads, queries, width), k and v (kv_heads, keys, width), mask (queries, keys).

    heads is a multiple of kv_heads; the mask, bool, lets every query see at least one key.
    """
    kv_heads, group, width = draw.size(2, 3), draw.size(2, 3), draw.size(2, 5)
    queries, keys = draw.size(2, 7), draw.size(2, 7)
    seen = draw.integers(0, keys, (queries, 1)) == torch.arange(keys, device=draw.device)
    return {
        "q": draw.normal(shape=(kv_heads * group, queries, width)),
        "k": draw.normal(shape=(kv_heads, keys, width)),
        "v": draw.normal(shape=(kv_heads, keys, width)),
        "mask": draw.booleans(0.6, (queries, keys)) | seen,
        "upstream": draw.normal(shape=(kv_heads * group, queries, width)),
    }


def attention(values: Values) -> Values:
    """y = softmax(q k^T / sqrt(width)) v; `group` heads in a row share one head of k and v."""
    q, mask = values["q"], values["mask"]
    group = len(q) // len(values["k"])
    k, v = (values[name].repeat_interleave(group, 0) for name in ("k", "v"))
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # (heads, queries, keys)
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)  # (heads, queries, keys)
    y = weights @ v  # (heads, queries, width)
    loss = (y * values["upstream"]).sum()
    return {"scores": scores, "weights": weights, "y": y, "loss": loss}


def attention_backward(values: Values) -> Values:
    """y = weights v, weights = softmax(masked scores), scores = scale q k^T, scale = 1/sqrt(width).

    Source: Dao et al., FlashAttention (2022), arXiv:2205.14135, appendix B.2; for grouped heads
    Ainslie et al., GQA (2023), arXiv:2305.13245.
    """
    mask, scale = values["mask"], 1 / math.sqrt(values["k"].shape[-1])
    k, v = values["k"][:, None], values["v"][:, None]  # (kv_heads, 1, keys, width)
    q, dy = (torch.unflatten(values[name], 0, (len(k), -1)) for name in ("q", "upstream"))
    scores = q @ k.mT * scale  # (kv_heads, group, queries, keys)
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)  # (kv_heads, group, queries, keys)

    dv = (weights.mT @ dy).sum(1)  # (kv_heads, keys, width): every head of the group adds to it
    dweights = dy @ v.mT  # (kv_heads, group, queries, keys)
    row = (weights * dweights).sum(-1, keepdim=True)  # (kv_heads, group, queries, 1)
    dmasked = weights * (dweights - row)  # (kv_heads, group, queries, keys)
    dscores = dmasked.masked_fill(~mask, 0.0)  # (kv_heads, group, queries, keys)
    dproducts = dscores * scale  # (kv_heads, group, queries, keys): smaller before the sums
    dq = dproducts @ k  # (kv_heads, group, queries, width)
    dk = (dproducts.mT @ q).sum(1)  # (kv_heads, keys, width)
    return {
        "y": dy.flatten(0, 1), "v": dv, "weights": dweights.flatten(0, 1),
        "scores": dscores.flatten(0, 1), "q": dq.flatten(0, 1), "k": dk,
    }  # fmt: skip


attention_twin = Twin("masked attention, grouped heads", attention_inputs, attention,
                      attention_backward)  # fmt: skip


def rope_inputs(draw: Draw) -> Values:
    """x and dL/dy (tokens, heads, 2 pairs), position (tokens,), int64, and frequency (pairs,)."""
    tokens, heads, pairs = draw.size(2, 7), draw.size(2, 5), draw.size(2, 3)
    return {
        "x": draw.normal(shape=(tokens, heads, 2 * pairs)),
        "position": draw.integers(0, 30, (tokens,)),
        "frequency": draw.uniform(0.01, 1.0, (pairs,)),
        "upstream": draw.normal(shape=(tokens, heads, 2 * pairs)),
    }


def rope(values: Values) -> Values:
    """Each pair (x1, x2) turned by angle = position * frequency."""
    x = values["x"]
    angle = values["position"][:, None] * values["frequency"]  # (tokens, pairs)
    cos, sin = angle.cos(), angle.sin()  # (tokens, pairs)
    x1, x2 = x.chunk(2, dim=-1)  # (tokens, heads, pairs)
    turned = torch.cat((-x2, x1), dim=-1)  # (tokens, heads, 2 pairs)
    y = x * torch.cat((cos, cos), -1)[:, None] + turned * torch.cat((sin, sin), -1)[:, None]
    loss = (y * values["upstream"]).sum()
    return {"angle": angle, "cos": cos, "sin": sin, "y": y, "loss": loss}


def rope_backward(values: Values) -> Values:
    """y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin: the gradient of x is dy turned by -angle.

    Source: Su et al., RoFormer (2021), arXiv:2104.09864, section 3.4.2.
    """
    position, frequency = values["position"], values["frequency"]
    angle = position[:, None] * frequency  # (tokens, pairs)
    cos, sin = angle.cos(), angle.sin()  # (tokens, pairs)
    x1, x2 = values["x"].chunk(2, dim=-1)  # (tokens, heads, pairs)
    dy1, dy2 = values["upstream"].chunk(2, dim=-1)  # (tokens, heads, pairs)

    dx1 = dy1 * cos[:, None] + dy2 * sin[:, None]  # (tokens, heads, pairs)
    dx2 = dy2 * cos[:, None] - dy1 * sin[:, None]  # (tokens, heads, pairs)
    dcos = (dy1 * x1 + dy2 * x2).sum(1)  # (tokens, pairs): the heads share it
    dsin = (dy2 * x1 - dy1 * x2).sum(1)  # (tokens, pairs)
    dangle = dsin * cos - dcos * sin  # (tokens, pairs)
    dfrequency = (dangle * position[:, None]).sum(0)  # (pairs,)
    return {
        "y": values["upstream"], "x": torch.cat((dx1, dx2), dim=-1),
        "cos": dcos, "sin": dsin, "angle": dangle, "frequency": dfrequency,
    }  # fmt: skip


rope_twin = Twin("rotary position embedding", rope_inputs, rope, rope_backward)
