"""Layer, RMS, batch and group normalization.

All but batch normalization differentiate x_hat = centred / std in one step: with the mean taken
over the normalized axes,

    dx = (dx_hat - mean(dx_hat) - x_hat mean(dx_hat x_hat)) / std

The second term is the path through the mean, the third the one through std. Batch normalization
takes the same way step by step, as in its paper.
"""

from torch import nn

from torch_ref.compare.twin import Draw, Twin, Values

EPS = 1e-5
GROUPS = 2


def layer_norm_inputs(draw: Draw) -> Values:
    """x and dL/dy (batch, features), gamma and beta (features,)."""
    batch, features = draw.size(2, 7), draw.size(3, 7)
    return {
        "x": draw.normal(shape=(batch, features)),
        "gamma": draw.normal(shape=(features,)),
        "beta": draw.normal(shape=(features,)),
        "upstream": draw.normal(shape=(batch, features)),
    }


def layer_norm(values: Values) -> Values:
    """x_hat and y, shape (batch, features): each row with mean 0 and variance 1, then rescaled."""
    x, gamma, beta = values["x"], values["gamma"], values["beta"]
    x_hat = nn.functional.layer_norm(x, x.shape[1:], eps=EPS)
    y = x_hat * gamma + beta
    return {"x_hat": x_hat, "y": y, "loss": (y * values["upstream"]).sum()}


def layer_norm_backward(values: Values) -> Values:
    """x_hat = (x - mean) / std over each row: a row's gradient loses its mean and its x_hat part.

    Source: Ba, Kiros and Hinton, Layer Normalization (2016), arXiv:1607.06450.
    """
    x, gamma = values["x"], values["gamma"]
    centred = x - x.mean(1, keepdim=True)  # (batch, features)
    std = (centred.square().mean(1, keepdim=True) + EPS).sqrt()  # (batch, 1)
    x_hat = centred / std  # (batch, features)

    dy = values["upstream"]  # (batch, features)
    dbeta = dy.sum(0)  # (features,)
    dgamma = (dy * x_hat).sum(0)  # (features,)
    dx_hat = dy * gamma  # (batch, features)
    through_mean = dx_hat.mean(1, keepdim=True)  # (batch, 1)
    through_std = x_hat * (dx_hat * x_hat).mean(1, keepdim=True)  # (batch, features)
    dx = (dx_hat - through_mean - through_std) / std  # (batch, features)
    return {"y": dy, "beta": dbeta, "gamma": dgamma, "x_hat": dx_hat, "x": dx}


layer_norm_twin = Twin("layer norm", layer_norm_inputs, layer_norm, layer_norm_backward)


def rms_norm_inputs(draw: Draw) -> Values:
    """x and dL/dy (batch, features), gamma (features,)."""
    batch, features = draw.size(2, 7), draw.size(2, 7)
    return {
        "x": draw.normal(shape=(batch, features)),
        "gamma": draw.normal(shape=(features,)),
        "upstream": draw.normal(shape=(batch, features)),
    }


def rms_norm(values: Values) -> Values:
    """x_hat and y, shape (batch, features): each row with mean square 1, then rescaled."""
    x, gamma = values["x"], values["gamma"]
    x_hat = nn.functional.rms_norm(x, x.shape[1:], eps=EPS)
    y = x_hat * gamma
    return {"x_hat": x_hat, "y": y, "loss": (y * values["upstream"]).sum()}


def rms_norm_backward(values: Values) -> Values:
    """x_hat = x / rms over each row: as layer normalization, without the path through the mean.

    Source: Zhang and Sennrich, Root Mean Square Layer Normalization (2019), arXiv:1910.07467.
    """
    x, gamma = values["x"], values["gamma"]
    rms = (x.square().mean(1, keepdim=True) + EPS).sqrt()  # (batch, 1)
    x_hat = x / rms  # (batch, features)

    dy = values["upstream"]  # (batch, features)
    dgamma = (dy * x_hat).sum(0)  # (features,)
    dx_hat = dy * gamma  # (batch, features)
    through_rms = x_hat * (dx_hat * x_hat).mean(1, keepdim=True)  # (batch, features)
    dx = (dx_hat - through_rms) / rms  # (batch, features)
    return {"y": dy, "gamma": dgamma, "x_hat": dx_hat, "x": dx}


rms_norm_twin = Twin("RMS norm", rms_norm_inputs, rms_norm, rms_norm_backward)


def batch_norm_inputs(draw: Draw) -> Values:
    """x and dL/dy (batch, features), gamma and beta (features,)."""
    batch, features = draw.size(3, 7), draw.size(2, 7)
    return {
        "x": draw.normal(shape=(batch, features)),
        "gamma": draw.normal(shape=(features,)),
        "beta": draw.normal(shape=(features,)),
        "upstream": draw.normal(shape=(batch, features)),
    }


def batch_norm(values: Values) -> Values:
    """As torch's batch_norm in training mode; spelled out, so that each step has a name.

    mean, variance and std have shape (features,); centred, x_hat and y (batch, features).
    """
    x, gamma, beta = values["x"], values["gamma"], values["beta"]
    mean = x.mean(0)
    centred = x - mean
    variance = centred.square().mean(0)
    std = (variance + EPS).sqrt()
    x_hat = centred / std
    y = x_hat * gamma + beta
    named = {"mean": mean, "centred": centred, "variance": variance, "std": std, "x_hat": x_hat}
    return {**named, "y": y, "loss": (y * values["upstream"]).sum()}


def batch_norm_backward(values: Values) -> Values:
    """The chain rule, step by step: centred acts twice, directly and through the variance.

    Source: Ioffe and Szegedy, Batch Normalization (2015), arXiv:1502.03167, section 3.
    """
    x, gamma = values["x"], values["gamma"]
    batch = len(x)
    centred = x - x.mean(0)  # (batch, features)
    std = (centred.square().mean(0) + EPS).sqrt()  # (features,)
    x_hat = centred / std  # (batch, features)

    dy = values["upstream"]  # (batch, features)
    dbeta = dy.sum(0)  # (features,)
    dgamma = (dy * x_hat).sum(0)  # (features,)
    dx_hat = dy * gamma  # (batch, features)
    dstd = -(dx_hat * x_hat).sum(0) / std  # (features,)
    dvariance = dstd / (2 * std)  # (features,)
    dcentred = dx_hat / std + dvariance * 2 * centred / batch  # (batch, features)
    dmean = -dcentred.sum(0)  # (features,)
    dx = dcentred + dmean / batch  # (batch, features)
    return {
        "y": dy, "beta": dbeta, "gamma": dgamma, "x_hat": dx_hat, "std": dstd,
        "variance": dvariance, "centred": dcentred, "mean": dmean, "x": dx,
    }  # fmt: skip


batch_norm_twin = Twin("batch norm", batch_norm_inputs, batch_norm, batch_norm_backward)


def group_norm_inputs(draw: Draw) -> Values:
    """x and dL/dy (batch, channels, positions), gamma and beta (channels,)."""
    batch, channels, positions = draw.size(2, 5), GROUPS * draw.size(1, 3), draw.size(3, 7)
    return {
        "x": draw.normal(shape=(batch, channels, positions)),
        "gamma": draw.normal(shape=(channels,)),
        "beta": draw.normal(shape=(channels,)),
        "upstream": draw.normal(shape=(batch, channels, positions)),
    }


def group_norm(values: Values) -> Values:
    """x_hat and y, shape (batch, channels, positions): each group with mean 0 and variance 1."""
    x, gamma, beta = values["x"], values["gamma"], values["beta"]
    x_hat = nn.functional.group_norm(x, GROUPS, eps=EPS)
    y = x_hat * gamma[:, None] + beta[:, None]
    return {"x_hat": x_hat, "y": y, "loss": (y * values["upstream"]).sum()}


def group_norm_backward(values: Values) -> Values:
    """As layer normalization, over each group of channels; gamma and beta are each channel's own.

    Source: Wu and He, Group Normalization (2018), arXiv:1803.08494.
    """
    x, gamma = values["x"], values["gamma"]
    shape = (len(x), GROUPS, -1)  # a group's channels and their positions, all in one axis
    grouped = x.reshape(shape)  # (batch, groups, members)
    centred = grouped - grouped.mean(2, keepdim=True)  # (batch, groups, members)
    std = (centred.square().mean(2, keepdim=True) + EPS).sqrt()  # (batch, groups, 1)
    x_hat = centred / std  # (batch, groups, members)

    dy = values["upstream"]  # (batch, channels, positions)
    dbeta = dy.sum((0, 2))  # (channels,)
    dgamma = (dy * x_hat.reshape(x.shape)).sum((0, 2))  # (channels,)
    dx_hat = (dy * gamma[:, None]).reshape(shape)  # (batch, groups, members)
    through_mean = dx_hat.mean(2, keepdim=True)  # (batch, groups, 1)
    through_std = x_hat * (dx_hat * x_hat).mean(2, keepdim=True)  # (batch, groups, members)
    dx = (dx_hat - through_mean - through_std) / std  # (batch, groups, members)
    return {
        "y": dy, "beta": dbeta, "gamma": dgamma, "x_hat": dx_hat.reshape(x.shape),
        "x": dx.reshape(x.shape),
    }  # fmt: skip


group_norm_twin = Twin("group norm", group_norm_inputs, group_norm, group_norm_backward)
