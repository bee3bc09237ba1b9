"""Embedding of tokens that occur more than once, and a matrix that embeds and unembeds."""

import torch
from torch import nn

from torch_ref.compare.twin import Draw, Twin, Values


def embedding_inputs(draw: Draw) -> Values:
    """table (vocabulary, width), tokens (batch, length), dL/dy (batch, length, width).

    tokens are int64, and many of them occur more than once.
    """
    vocabulary, width = draw.size(2, 5), draw.size(2, 7)
    batch, length = draw.size(2, 3), draw.size(2, 7)
    return {
        "table": draw.normal(shape=(vocabulary, width)),
        "tokens": draw.integers(0, vocabulary, (batch, length)),
        "upstream": draw.normal(shape=(batch, length, width)),
    }


def embedding(values: Values) -> Values:
    """y[i, j] = table[tokens[i, j]]."""
    y = nn.functional.embedding(values["tokens"], values["table"])  # (batch, length, width)
    return {"y": y, "loss": (y * values["upstream"]).sum()}


def embedding_backward(values: Values) -> Values:
    """y = one_hot(tokens) table, so dtable = one_hot(tokens)^T dy: a row sums all its uses.

    Source: the derivative of a matrix product, as in `linear`.
    """
    dy = values["upstream"]  # (batch, length, width)
    dtable = torch.zeros_like(values["table"])  # (vocabulary, width)
    dtable = dtable.index_put((values["tokens"],), dy, accumulate=True)  # (vocabulary, width)
    return {"y": dy, "table": dtable}


embedding_twin = Twin("embedding", embedding_inputs, embedding, embedding_backward)


def tied_embedding_inputs(draw: Draw) -> Values:
    """table (vocabulary, width), w (width, width), tokens (length,), dL/dlogits
    (length, vocabulary).
    """
    vocabulary, width, length = draw.size(2, 5), draw.size(2, 5), draw.size(2, 7)
    return {
        "table": draw.normal(shape=(vocabulary, width)),
        "w": draw.normal(shape=(width, width)),
        "tokens": draw.integers(0, vocabulary, (length,)),
        "upstream": draw.normal(shape=(length, vocabulary)),
    }


def tied_embedding(values: Values) -> Values:
    """logits = h table^T, h = x w, x = table[tokens]: the table at both ends."""
    x = nn.functional.embedding(values["tokens"], values["table"])  # (length, width)
    h = x @ values["w"]  # (length, width)
    logits = nn.functional.linear(h, values["table"])  # (length, vocabulary)
    return {"x": x, "h": h, "logits": logits, "loss": (logits * values["upstream"]).sum()}


def tied_embedding_backward(values: Values) -> Values:
    """The table is used twice, so its gradient is the sum of both uses.

    Source: Press and Wolf, Using the Output Embedding to Improve Language Models (2017),
    arXiv:1608.05859.
    """
    table, w, tokens = (values[name] for name in ("table", "w", "tokens"))
    x = table[tokens]  # (length, width)
    h = x @ w  # (length, width)

    dlogits = values["upstream"]  # (length, vocabulary)
    dtable_out = dlogits.mT @ h  # (vocabulary, width): as it unembeds
    dh = dlogits @ table  # (length, width)
    dw = x.mT @ dh  # (width, width)
    dx = dh @ w.mT  # (length, width)
    dtable_in = torch.zeros_like(table)  # (vocabulary, width): as it embeds
    dtable_in = dtable_in.index_put((tokens,), dx, accumulate=True)  # (vocabulary, width)
    dtable = dtable_out + dtable_in  # (vocabulary, width)
    return {"logits": dlogits, "h": dh, "w": dw, "x": dx, "table": dtable}


tied_embedding_twin = Twin("tied embedding", tied_embedding_inputs, tied_embedding,
                           tied_embedding_backward)  # fmt: skip
