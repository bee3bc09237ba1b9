"""Bugs to plant in the first part of the gallery: one piece of a backward pass replaced once.

BUGS[what is wrong] = (twin, function, the right code, the wrong code, the first wrong quantity)
"""

from torch_ref import Twin
from torch_ref.gallery.linear import linear_twin
from torch_ref.gallery.logarithms import (
    log_softmax_twin,
    logaddexp_twin,
    logsumexp_twin,
    softplus_twin,
)
from torch_ref.gallery.losses import cosine_twin, cross_entropy_twin, dice_twin, huber_twin
from torch_ref.gallery.normalization import (
    batch_norm_twin,
    group_norm_twin,
    layer_norm_twin,
    rms_norm_twin,
)

Bug = tuple[Twin, str, str, str, str]


def _bugs(twin: Twin, bugs: dict[str, tuple[str, str, str]]) -> dict[str, Bug]:
    function = twin.manual.__name__
    return {f"{twin.name}: {what}": (twin, function, *bug) for what, bug in bugs.items()}


LINEAR = _bugs(linear_twin, {
    "dL/dW transposed": ("dy.T @ x", "x.T @ dy", "weight"),
    "batch mean for sum in dL/db": ("dy.sum(0)", "dy.mean(0)", "bias"),
    "batch mean for sum in dL/dW": ("dy.T @ x", "dy.T @ x / len(x)", "weight"),
    "sign of dL/dx": ("dx = dy @ weight", "dx = -dy @ weight", "x"),
})  # fmt: skip

LAYER_NORM = _bugs(layer_norm_twin, {
    "the path through the mean left out": (" - through_mean", "", "x"),
    "the path through std left out": (" - through_std", "", "x"),
    "sum for mean in the path through std": (
        "(dx_hat * x_hat).mean(1", "(dx_hat * x_hat).sum(1", "x"),
    "mean over the batch for mean over the features": (
        "dx_hat.mean(1, keepdim=True)", "dx_hat.mean(0, keepdim=True)", "x"),
    "1 / std left out": ("through_std) / std", "through_std)", "x"),
    "gamma left out of dL/dx_hat": ("dx_hat = dy * gamma", "dx_hat = dy", "x_hat"),
    "x for x_hat in dL/dgamma": ("(dy * x_hat).sum(0)", "(dy * x).sum(0)", "gamma"),
    "variance over n - 1": ("centred.square().mean(1", "x.var(1", "gamma"),
    "eps forgotten": (" + EPS", "", "gamma"),
})  # fmt: skip

RMS_NORM = _bugs(rms_norm_twin, {
    "the path through rms left out": (" - through_rms", "", "x"),
    "mean subtracted as in layer norm": (
        " - through_rms", " - dx_hat.mean(1, keepdim=True) - through_rms", "x"),
    "x for x_hat in the path through rms": ("x_hat * (dx_hat * x_hat)", "x * (dx_hat * x)", "x"),
    "divided by the mean square": ("through_rms) / rms", "through_rms) / rms.square()", "x"),
    "gamma left out of dL/dx_hat": ("dx_hat = dy * gamma", "dx_hat = dy", "x_hat"),
    "eps forgotten": (" + EPS", "", "gamma"),
})  # fmt: skip

BATCH_NORM = _bugs(batch_norm_twin, {
    "statistics taken for constants, as in evaluation": (
        "dcentred + dmean / batch", "dx_hat / std", "x"),
    "the path through the mean left out": (" + dmean / batch", "", "x"),
    "sum for mean in the path through the mean": ("dmean / batch", "dmean", "x"),
    "sign of dL/dmean": ("-dcentred.sum(0)", "dcentred.sum(0)", "mean"),
    "the path through the variance left out": (" + dvariance * 2 * centred / batch", "", "centred"),
    "sum for mean in the path through the variance": ("centred / batch", "centred", "centred"),
    "the square's factor 2 left out": ("dvariance * 2", "dvariance", "centred"),
    "wrong power of std": ("(2 * std)", "(2 * std.square())", "variance"),
    "1 / std left out of dL/dstd": (".sum(0) / std", ".sum(0)", "std"),
    "variance over n - 1": ("centred.square().mean(0)", "x.var(0)", "gamma"),
    "mean for sum in dL/dbeta": ("dy.sum(0)", "dy.mean(0)", "beta"),
})  # fmt: skip

GROUP_NORM = _bugs(group_norm_twin, {
    "the path through the mean left out": (" - through_mean", "", "x"),
    "mean over the sample for mean over the group": (
        "dx_hat.mean(2, keepdim=True)", "dx_hat.mean((1, 2), keepdim=True)", "x"),
    "one group, as in layer norm": ("GROUPS, -1", "1, -1", "gamma"),
    "one group a channel, as in instance norm": ("GROUPS, -1", "x.shape[1], -1", "gamma"),
    "gamma left out of dL/dx_hat": ("(dy * gamma[:, None])", "dy", "x_hat"),
    "mean over positions in dL/dbeta": ("dy.sum((0, 2))", "dy.mean(2).sum(0)", "beta"),
    "eps forgotten": (" + EPS", "", "gamma"),
})  # fmt: skip

CROSS_ENTROPY = _bugs(cross_entropy_twin, {
    "ignored rows not zeroed": ("torch.where(kept, p - q, 0.0)", "(p - q)", "logits"),
    "ignored rows counted in the mean": ("kept.sum()", "len(logits)", "logits"),
    "sum for mean": (" / kept.sum()", "", "logits"),
    "smoothing left out": (
        "(1 - SMOOTHING) * label.to(logits) + SMOOTHING / classes", "label.to(logits)", "logits"),
    "smoothing of the other classes alone": ("/ classes", "/ (classes - 1)", "logits"),
    "the label's own share not smoothed": ("(1 - SMOOTHING) * ", "", "logits"),
    "sign": ("kept, p - q", "kept, q - p", "logits"),
    "softmax over the batch": (
        "e / e.sum(1, keepdim=True)", "e / e.sum(0, keepdim=True)", "logits"),
    "exp that overflows": ("(logits - logits.amax(1, keepdim=True))", "logits", "logits"),
})  # fmt: skip

HUBER = _bugs(huber_twin, {
    "the linear part left out": (".clamp(-DELTA, DELTA)", "", "error"),
    "only large positive errors linear": (".clamp(-DELTA, DELTA)", ".clamp(max=DELTA)", "error"),
    "delta left out of the linear part": (
        "error.clamp(-DELTA, DELTA)",
        "torch.where(error.abs() < DELTA, error, error.sign())", "error"),
    "smooth L1, which divides by delta": ("-DELTA, DELTA)", "-DELTA, DELTA) / DELTA", "error"),
    "the square's 1/2 forgotten": (" / error.numel()", " * 2 / error.numel()", "error"),
    "mean over the batch alone": ("error.numel()", "len(error)", "error"),
    "sign of dL/dtarget": ("-derror", "derror", "target"),
})  # fmt: skip

DICE = _bugs(dice_twin, {
    "sum for mean over the batch": ("-1 / len(score)", "-1.0", "score"),
    "the overlap's factor 2 left out": ("dscore * 2", "dscore", "overlap"),
    "smoothing forgotten": ("dscore * 2 / (total + SMOOTH)", "dscore * 2 / total", "overlap"),
    "1 / total left out of the quotient rule": (
        "-dscore * score / (total + SMOOTH)", "-dscore * score", "total"),
    "sign in the quotient rule": ("-dscore * score", "dscore * score", "total"),
    "the path through the total left out": (" + dtotal[:, None]", "", "p"),
    "mask on both paths": (
        "doverlap[:, None] * mask + dtotal[:, None]", "(doverlap + dtotal)[:, None] * mask", "p"),
    "sigmoid' left out": (" * p * (-logits).sigmoid()", "", "logits"),
})  # fmt: skip

COSINE = _bugs(cosine_twin, {
    "a's own direction for b's": ("[:, None] * b_hat", "[:, None] * a_hat", "a_hat"),
    "b not normalized": ("[:, None] * b_hat", "[:, None] * b", "a_hat"),
    "the path through |a| left out": (
        "(da_hat - torch.where(a_norm >= EPS, a_radial, 0.0))", "da_hat", "a"),
    "|b| for |a|": ("0.0)) / a_norm", "0.0)) / b_norm", "a"),
    "mean for sum in the path through |b|": (
        "(b_hat * db_hat).sum(1", "(b_hat * db_hat).mean(1", "b"),
    "eps forgotten": ("b / b_norm.clamp(min=EPS)", "b / b_norm", "a_hat"),
    "the path through |b| kept where eps stands for it": (
        "torch.where(b_norm >= EPS, b_radial, 0.0)", "b_radial", "b"),
})  # fmt: skip

LOGSUMEXP = _bugs(logsumexp_twin, {
    "upstream gradient left out": ("dy[:, None] * e", "e", "x"),
    "not divided by the sum": (" / e.sum(1, keepdim=True)", "", "x"),
    "divided by the batch's sum": ("e.sum(1, keepdim=True)", "e.sum(0, keepdim=True)", "x"),
    "exp that overflows": ("(x - x.amax(1, keepdim=True))", "x", "x"),
})  # fmt: skip

LOG_SOFTMAX = _bugs(log_softmax_twin, {
    "the path through the sum left out": (" - p * dy.sum(1, keepdim=True)", "", "x"),
    "upstream gradient taken for one-hot": ("p * dy.sum(1, keepdim=True)", "p", "x"),
    "mean for sum": ("dy.sum(1", "dy.mean(1", "x"),
    "sum over the batch": ("dy.sum(1, keepdim=True)", "dy.sum(0, keepdim=True)", "x"),
    "softmax' for log-softmax'": (
        "dy - p * dy.sum(1, keepdim=True)", "p * (dy - (p * dy).sum(1, keepdim=True))", "x"),
    "exp that overflows": ("(x - x.amax(1, keepdim=True))", "x", "x"),
})  # fmt: skip

SOFTPLUS = _bugs(softplus_twin, {
    "sigmoid' for sigmoid": ("x.sigmoid()", "x.sigmoid() * (-x).sigmoid()", "x"),
    "sign of x": ("x.sigmoid()", "(-x).sigmoid()", "x"),
    "relu' for softplus'": ("x > THRESHOLD", "x > 0", "x"),
    "upstream gradient left out": ("dy * torch.where", "torch.where", "x"),
    "exp that overflows": (
        "torch.where(x > THRESHOLD, 1.0, x.sigmoid())", "x.exp() / (1 + x.exp())", "x"),
})  # fmt: skip

LOGADDEXP = _bugs(logaddexp_twin, {
    "a and b exchanged": ("(a - b).sigmoid()", "(b - a).sigmoid()", "a"),
    "the larger one takes all": ("(a - b).sigmoid()", "(a > b)", "a"),
    "exp that overflows": ("(a - b).sigmoid()", "a.exp() / (a.exp() + b.exp())", "a"),
    "mean over the batch for the sum": (".sum(0)", ".mean(0)", "b"),
    "not summed over the batch": (".sum(0)", "", "b"),
})  # fmt: skip

BUGS: dict[str, Bug] = {
    **LINEAR, **LAYER_NORM, **RMS_NORM, **BATCH_NORM, **GROUP_NORM,
    **CROSS_ENTROPY, **HUBER, **DICE, **COSINE,
    **LOGSUMEXP, **LOG_SOFTMAX, **SOFTPLUS, **LOGADDEXP,
}  # fmt: skip
