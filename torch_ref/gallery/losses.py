"""Softmax cross entropy, Huber, Dice and cosine losses."""

import torch
from torch import nn

from torch_ref.compare.twin import Draw, Twin, Values

IGNORED = -100  # the label that stands for none
SMOOTHING = 0.1
DELTA = 1.5
SMOOTH = 1.0
EPS = 1e-6  # torch takes 1e-12, which is 0 in float16


def cross_entropy_inputs(draw: Draw) -> Values:
    """logits (batch, classes) and labels (batch,), int64, some of them IGNORED.

    In the stratum "large", exp of the logits overflows in every dtype.
    """
    batch, classes = draw.size(2, 7), draw.size(2, 7)
    std = 3000.0 if draw.stratum == "large" else 2.0
    ignored = draw.booleans(0.3, shape=(batch,))
    ignored[0] = False  # a mean over no row is not a number
    labels = draw.integers(0, classes, shape=(batch,))
    return {
        "logits": draw.normal(std=std, shape=(batch, classes)),
        "labels": labels.masked_fill(ignored, IGNORED),
    }


def cross_entropy(values: Values) -> Values:
    """The mean over the rows that have a label, each label smoothed."""
    loss = nn.functional.cross_entropy(
        values["logits"], values["labels"], ignore_index=IGNORED, label_smoothing=SMOOTHING
    )
    return {"loss": loss}


def cross_entropy_backward(values: Values) -> Values:
    """L = -mean(sum_j q_j log softmax(z)_j), sum_j q_j = 1: dL/dz = (p - q) / kept rows.

    Source: Bridle (1990) for p - q; Szegedy et al. (2016), arXiv:1512.00567, section 7, for the
    smoothed labels q.
    """
    logits, labels = values["logits"], values["labels"][:, None]  # (batch, classes), (batch, 1)
    classes = logits.shape[1]
    kept = labels != IGNORED  # (batch, 1)
    label = torch.arange(classes, device=labels.device) == labels  # (batch, classes)
    q = (1 - SMOOTHING) * label.to(logits) + SMOOTHING / classes  # (batch, classes)
    e = (logits - logits.amax(1, keepdim=True)).exp()  # (batch, classes), at most 1
    p = e / e.sum(1, keepdim=True)  # (batch, classes)

    dlogits = torch.where(kept, p - q, 0.0) / kept.sum()  # (batch, classes)
    return {"logits": dlogits}


cross_entropy_twin = Twin("cross entropy", cross_entropy_inputs, cross_entropy,
                          cross_entropy_backward, ("ordinary", "large"))  # fmt: skip


def huber_inputs(draw: Draw) -> Values:
    """prediction and target (batch, outputs), errors on both sides of DELTA."""
    shape = (draw.size(2, 7), draw.size(2, 7))
    return {"prediction": draw.normal(std=2.0, shape=shape), "target": draw.normal(shape=shape)}


def huber(values: Values) -> Values:
    """error (batch, outputs), and the mean of error^2 / 2, linear from DELTA on."""
    error = values["prediction"] - values["target"]
    return {
        "error": error,
        "loss": nn.functional.huber_loss(error, torch.zeros_like(error), delta=DELTA),
    }


def huber_backward(values: Values) -> Values:
    """The derivative of error^2 / 2 is error, and that of the linear part DELTA: the error clamped.

    Source: Huber, Robust Estimation of a Location Parameter (1964).
    """
    error = values["prediction"] - values["target"]  # (batch, outputs)

    derror = error.clamp(-DELTA, DELTA) / error.numel()  # (batch, outputs)
    dprediction = derror  # (batch, outputs)
    dtarget = -derror  # (batch, outputs)
    return {"error": derror, "prediction": dprediction, "target": dtarget}


huber_twin = Twin("Huber", huber_inputs, huber, huber_backward)


def dice_inputs(draw: Draw) -> Values:
    """logits (batch, pixels) and mask (batch, pixels), bool."""
    shape = (draw.size(2, 7), draw.size(2, 7))
    return {"logits": draw.normal(std=2.0, shape=shape), "mask": draw.booleans(shape=shape)}


def dice(values: Values) -> Values:
    """1 - mean over images of (2 overlap + SMOOTH) / (total + SMOOTH).

    p has shape (batch, pixels); overlap, total and score have (batch,).
    """
    p = values["logits"].sigmoid()
    overlap = (p * values["mask"]).sum(1)
    total = p.sum(1) + values["mask"].sum(1)
    score = (2 * overlap + SMOOTH) / (total + SMOOTH)
    named = {"p": p, "overlap": overlap, "total": total, "score": score}
    return {**named, "loss": 1 - score.mean()}


def dice_backward(values: Values) -> Values:
    """score = (2 overlap + s) / (total + s) by the quotient rule; p acts through both.

    Source: Milletari, Navab and Ahmadi, V-Net (2016), arXiv:1606.04797, section 3, with sums in
    place of sums of squares in the denominator.
    """
    logits, mask = values["logits"], values["mask"].to(values["logits"])  # (batch, pixels)
    p = logits.sigmoid()  # (batch, pixels)
    total = p.sum(1) + mask.sum(1)  # (batch,)
    score = (2 * (p * mask).sum(1) + SMOOTH) / (total + SMOOTH)  # (batch,)

    dscore = torch.full_like(score, -1 / len(score))  # (batch,)
    doverlap = dscore * 2 / (total + SMOOTH)  # (batch,)
    dtotal = -dscore * score / (total + SMOOTH)  # (batch,)
    dp = doverlap[:, None] * mask + dtotal[:, None]  # (batch, pixels)
    dlogits = dp * p * (-logits).sigmoid()  # (batch, pixels); 1 - p would lose digits
    return {"score": dscore, "overlap": doverlap, "total": dtotal, "p": dp, "logits": dlogits}


dice_twin = Twin("Dice", dice_inputs, dice, dice_backward)


def cosine_inputs(draw: Draw) -> Values:
    """a and b (batch, features); in the stratum "short", of lengths around EPS."""
    shape = (draw.size(2, 7), draw.size(2, 7))
    std = EPS / 2 if draw.stratum == "short" else 1.0
    return {"a": draw.normal(std=std, shape=shape), "b": draw.normal(std=std, shape=shape)}


def cosine(values: Values) -> Values:
    """The mean of 1 - cosine similarity; a vector shorter than EPS is divided by EPS instead.

    a_hat and b_hat have shape (batch, features), similarity (batch,).
    """
    a_hat = nn.functional.normalize(values["a"], dim=1, eps=EPS)
    b_hat = nn.functional.normalize(values["b"], dim=1, eps=EPS)
    similarity = (a_hat * b_hat).sum(1)
    named = {"a_hat": a_hat, "b_hat": b_hat, "similarity": similarity}
    return {**named, "loss": (1 - similarity).mean()}


def cosine_backward(values: Values) -> Values:
    """a_hat = a / |a| moves only across itself: da = (da_hat - a_hat (a_hat . da_hat)) / |a|.

    Where EPS stands for |a| nothing holds a_hat's length, and the second term is not there.
    Source: Petersen and Pedersen, The Matrix Cookbook (2012), equation 130.
    """
    a, b = values["a"], values["b"]
    a_norm = a.square().sum(1, keepdim=True).sqrt()  # (batch, 1)
    b_norm = b.square().sum(1, keepdim=True).sqrt()  # (batch, 1)
    a_hat = a / a_norm.clamp(min=EPS)  # (batch, features)
    b_hat = b / b_norm.clamp(min=EPS)  # (batch, features)

    dsimilarity = a.new_full((len(a),), -1 / len(a))  # (batch,)
    da_hat = dsimilarity[:, None] * b_hat  # (batch, features)
    db_hat = dsimilarity[:, None] * a_hat  # (batch, features)
    a_radial = a_hat * (a_hat * da_hat).sum(1, keepdim=True)  # (batch, features)
    b_radial = b_hat * (b_hat * db_hat).sum(1, keepdim=True)  # (batch, features)
    da = (da_hat - torch.where(a_norm >= EPS, a_radial, 0.0)) / a_norm.clamp(min=EPS)
    db = (db_hat - torch.where(b_norm >= EPS, b_radial, 0.0)) / b_norm.clamp(min=EPS)
    return {"similarity": dsimilarity, "a_hat": da_hat, "b_hat": db_hat, "a": da, "b": db}


cosine_twin = Twin("cosine", cosine_inputs, cosine, cosine_backward, ("ordinary", "short"))
