"""The forecasts that the network is ranked against; each fitted once, on the training years."""

from typing import Any

import numpy as np

from torch_ref.experiments.data import Array, Series

ROLLING = (5, 22, 66)  # days: a week, a month, a quarter
RISK_METRICS = 0.94  # the decay of J.P. Morgan's RiskMetrics Technical Document (1996) for days


def baselines(series: Series) -> dict[str, Array]:
    """By name, the forecast variance in percent^2 of every day, shape (n,), made on the day before.

    Where a forecast has no past to be made of it is NaN; that ends before the test years.
    """
    return {
        "constant": np.full(len(series.returns), series.variance[: series.train].mean()),
        **{f"mean of {days} days": rolling_mean(series.variance, days) for days in ROLLING},
        f"EWMA {RISK_METRICS}": ewma(series),
        "GARCH(1,1)": garch(series),
        "GJR-GARCH(1,1)": garch(series, leverage=True),
    }


def rolling_mean(variance: Array, days: int) -> Array:
    """The mean of the last `days` numbers before each, shape (n,); NaN where there are fewer."""
    means = np.full(variance.shape, np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(variance, days)
    means[days:] = windows[:-1].mean(axis=-1)
    return means


def ewma(series: Series, decay: float = RISK_METRICS) -> Array:
    """s[i] = decay s[i - 1] + (1 - decay) r[i - 1]^2, shape (n,), from the training years' mean."""
    forecast = np.empty(len(series.returns))
    forecast[0] = series.variance[: series.train].mean()
    for day in range(1, len(forecast)):
        forecast[day] = decay * forecast[day - 1] + (1 - decay) * series.variance[day - 1]
    return forecast


def garch(series: Series, *, leverage: bool = False) -> Array:
    """GARCH(1,1) with a mean of zero and normal errors, fitted by `arch`; with leverage GJR's.

    s[i] = omega + (alpha + gamma [r < 0]) r^2 + beta s, r and s being those of day i - 1: fixed
    parameters, so the test years are filtered and nothing is fitted to them.
    Bollerslev, J. Econometrics 31(3), 1986; Glosten, Jagannathan, Runkle, J. Finance 48(5), 1993.
    """
    model = arch_model(series.returns, leverage)
    fitted = model.fit(last_obs=series.train, disp="off")
    variance: Array = np.asarray(model.fix(fitted.params).conditional_volatility) ** 2
    return variance


def arch_model(returns: Array, leverage: bool) -> Any:
    """The model in the library `arch`, not fitted yet."""
    from arch import arch_model as make

    return make(returns, mean="Zero", vol="GARCH", p=1, o=int(leverage), q=1, rescale=False)
