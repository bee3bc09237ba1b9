"""Data, features, baselines, ranking and protocol of the experiments."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from statsmodels.api import OLS

from torch_ref.experiments import (
    PROTOCOL,
    RECIPES,
    Series,
    SeriesError,
    log_returns,
    protocol,
    sp500,
)
from torch_ref.experiments.baselines import arch_model, baselines, ewma, garch, rolling_mean
from torch_ref.experiments.data import BURN_IN
from torch_ref.experiments.features import Feature, network_inputs, weighted_mean
from torch_ref.experiments.ranking import diebold_mariano, long_run_variance, qlike, rank
from torch_ref.experiments.selection import (
    CLOSE,
    WIDE,
    folds,
    validation_qlike,
    yardstick,
)
from torch_ref.experiments.selection import RECIPES as TRIED

DAYS = 600


def series_of(days: int = DAYS, train: int = 500, seed: int = 0) -> Series:
    """Returns whose variance moves slowly; one of them is zero on either side."""
    generator = np.random.default_rng(seed)
    deviation = np.exp(0.5 * np.sin(np.arange(days) / 40))
    returns = deviation * generator.normal(size=days)
    returns[[train - 3, train + 3]] = 0
    dates = np.datetime64("2020-01-01") + np.arange(days)
    return Series("made up", dates, returns, train)


@pytest.fixture(scope="module")
def shipped() -> Series:
    return sp500()


# data --------------------------------------------------------------------------------------------


def test_the_shipped_series_has_the_facts_that_are_said(shipped: Series) -> None:
    assert (len(shipped.returns), shipped.train, shipped.test) == (5030, 3772, 1258)
    days = [shipped.date(day) for day in (0, shipped.train - 1, shipped.train, -1)]
    assert days == ["1999-01-05", "2013-12-31", "2014-01-02", "2018-12-31"]
    assert shipped.zero_days == ["2003-01-10", "2008-01-03", "2017-01-10"]
    assert len(shipped.judged) == 1257
    assert len(shipped.learnt) == 3772 - BURN_IN - 2
    assert shipped.learnt.max() < shipped.train <= shipped.judged.min()


def test_log_returns_are_in_percent() -> None:
    assert log_returns(np.array([100.0, 100.0 * math.e, 100.0])) == pytest.approx([100, -100])


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_a_price_that_is_none_is_named(wrong: float) -> None:
    with pytest.raises(SeriesError, match=f"positive and finite; number 1 is {wrong}"):
        log_returns(np.array([1.0, wrong, 2.0]))


@pytest.mark.parametrize(
    ("returns", "train", "message"),
    [
        (np.zeros((9, 2)), 400, "one shape"),
        (np.where(np.arange(500) == 7, np.nan, 1.0), 400, "number 7 is nan: leave it out"),
        (np.ones(500), 500, "got train=500 of 500 returns"),
        (np.ones(500), BURN_IN + 99, "100 to learn from"),
    ],
)
def test_a_series_that_cannot_be_used_is_refused(
    returns: np.ndarray, train: int, message: str
) -> None:
    with pytest.raises(SeriesError, match=message):
        Series("wrong", np.arange(len(returns)), returns, train)


# features ----------------------------------------------------------------------------------------


def test_a_feature_knows_only_the_days_before() -> None:
    """The last return, and the first test day's, move no number up to that day."""
    series = series_of()
    for day in (DAYS - 1, series.train):
        changed = series.returns.copy()
        changed[day] = 50.0
        other = Series("changed", series.dates, changed, series.train)
        before, after = (network_inputs(one, PROTOCOL.features) for one in (series, other))
        assert np.array_equal(before[: day + 1], after[: day + 1])
        assert not np.isclose(before[day + 1 : day + 4], after[day + 1 : day + 4]).any()


def test_features_are_scaled_by_the_days_learnt_from() -> None:
    series = series_of()
    learnt = network_inputs(series, PROTOCOL.features)[series.learnt]
    assert learnt.mean(axis=0) == pytest.approx([0, 0], abs=1e-12)
    assert learnt.std(axis=0) == pytest.approx([1, 1])


def test_leverage_decides_what_a_gain_counts() -> None:
    returns = np.array([-2.0, 2.0])
    assert Feature(0.9, 0.0).shocks(returns).tolist() == [4, 4]
    assert Feature(0.9, 1.0).shocks(returns).tolist() == [8, 0]
    assert Feature(0.9, 0.5).shocks(returns) == pytest.approx([7.2, 0.8])


def test_the_weighted_mean_is_the_recursion() -> None:
    shocks = np.random.default_rng(0).exponential(size=BURN_IN + 3)
    start = shocks[:BURN_IN].mean()
    first = 0.9 * start + 0.1 * shocks[BURN_IN]
    second = 0.9 * first + 0.1 * shocks[BURN_IN + 1]
    assert weighted_mean(shocks, 0.9)[BURN_IN:] == pytest.approx([start, first, second])


# baselines ---------------------------------------------------------------------------------------


def test_rolling_mean() -> None:
    found = rolling_mean(np.array([1.0, 2.0, 3.0, 6.0]), 2)
    assert np.isnan(found[:2]).all()
    assert found[2:].tolist() == [1.5, 2.5]


def test_ewma_is_that_of_arch() -> None:
    """arch starts elsewhere; after 400 days of decay 0.94 nothing of that is left."""
    from arch.univariate import EWMAVariance, ZeroMean

    series = series_of()
    theirs = ZeroMean(series.returns, volatility=EWMAVariance(0.94), rescale=False).fit(disp="off")
    ours = ewma(series)[400:]
    assert ours == pytest.approx(np.asarray(theirs.conditional_volatility)[400:] ** 2, rel=1e-9)


@pytest.mark.parametrize("leverage", [False, True])
def test_garch_gives_the_forecasts_of_arch(leverage: bool) -> None:
    """Of arch's own forecasts one day ahead, from parameters of the training years."""
    series = series_of()
    fitted = arch_model(series.returns, leverage).fit(last_obs=series.train, disp="off")
    ahead = fitted.forecast(horizon=1, start=series.train - 1, reindex=False).variance.to_numpy()
    ours = garch(series, leverage=leverage)[series.train :]
    assert ours == pytest.approx(ahead[:-1, 0], rel=1e-9)


def test_garch_learns_nothing_from_the_test_years() -> None:
    series = series_of()
    changed = series.returns.copy()
    changed[series.train + 50 :] *= 7
    other = Series("changed", series.dates, changed, series.train)
    until = series.train + 51
    for leverage in (False, True):
        ours, theirs = (garch(one, leverage=leverage)[:until] for one in (series, other))
        assert ours == pytest.approx(theirs, rel=1e-12)


def test_the_baselines_have_the_figures_that_are_said(shipped: Series) -> None:
    days = shipped.judged
    found = {
        name: qlike(forecast, shipped.variance)[days].mean()
        for name, forecast in baselines(shipped).items()
    }
    assert {name: round(float(loss), 4) for name, loss in found.items()} == {
        "constant": 2.2820,
        "mean of 5 days": 2.2403,
        "mean of 22 days": 1.8971,
        "mean of 66 days": 1.8898,
        "EWMA 0.94": 1.7957,
        "GARCH(1,1)": pytest.approx(1.7408, abs=2e-4),  # an optimizer's, on any machine
        "GJR-GARCH(1,1)": pytest.approx(1.6954, abs=2e-4),
    }


# ranking -----------------------------------------------------------------------------------------


def test_diebold_mariano_by_hand() -> None:
    """d = 1, 2, 3, 6: mean 3, c0 = 3.5, c1 = -1/4 ... with n = 4 the rule gives 1 lag."""
    first, second = np.array([2.0, 4.0, 6.0, 12.0]), np.array([1.0, 2.0, 3.0, 6.0])
    centred = [-2, -1, 0, 3]
    c0 = sum(value * value for value in centred) / 4
    c1 = sum(a * b for a, b in pairwise(centred)) / 4
    assert int(4 * (4 / 100) ** (2 / 9)) == 1
    variance = c0 + 2 * (1 - 1 / 2) * c1
    statistic, p = diebold_mariano(first, second)
    assert statistic == pytest.approx(3 / math.sqrt(variance / 4))
    assert p == pytest.approx(math.erfc(statistic / math.sqrt(2)))
    assert diebold_mariano(second, first) == (-statistic, p)


def test_diebold_mariano_is_statsmodels_regression_on_a_constant() -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(1258, 2))
    losses = 0.02 + noise + 0.5 * np.roll(noise, 1, axis=0)
    difference = losses[:, 0] - losses[:, 1]
    fitted = OLS(difference, np.ones(1258)).fit(
        cov_type="HAC", cov_kwds={"maxlags": 7, "use_correction": False}
    )
    assert diebold_mariano(losses[:, 0], losses[:, 1]) == pytest.approx(
        (fitted.tvalues[0], fitted.pvalues[0])
    )
    assert long_run_variance(difference) > 1.3 * difference.var()  # lags matter here


def test_two_losses_that_are_the_same_say_nothing() -> None:
    statistic, p = diebold_mariano(np.arange(9.0), np.arange(9.0))
    assert math.isnan(statistic)
    assert p == 1


def test_rank_puts_the_lowest_first_and_tests_the_network() -> None:
    variance = np.random.default_rng(0).chisquare(1, size=500)
    given = {"net": np.full(500, 1.1), "good": np.ones(500), "bad": np.full(500, 9.0)}
    rows = rank(given, variance, "net")
    assert [row.name for row in rows] == ["good", "net", "bad"]
    assert rows[1].statistic is rows[1].p is None
    assert rows[2].statistic < -5 < 0 < rows[0].statistic
    assert rows[0].qlike == pytest.approx((variance - np.log(variance) - 1).mean())


def test_a_forecast_without_a_loss_is_named() -> None:
    with pytest.raises(ValueError, match=r"bad: QLIKE needs .* on day 2 they are 0.0 and 1.0"):
        rank({"bad": np.array([1.0, 1.0, 0.0])}, np.ones(3), "bad")


# the protocol ------------------------------------------------------------------------------------


def test_the_choice_never_sees_the_test_years(shipped: Series) -> None:
    seen = list(folds(shipped))
    assert max(len(fold.returns) for fold in seen) == shipped.train
    spans = [(fold.date(fold.train)[:4], fold.date(-1)[:4]) for fold in seen]
    assert spans == [("2006", "2007"), ("2008", "2009"), ("2010", "2011"), ("2012", "2013")]
    assert sum(len(fold.judged) for fold in seen) == 2012  # 2008-01-03 has no return


def test_what_was_chosen_is_among_what_was_tried() -> None:
    assert PROTOCOL.features in CLOSE
    assert len({*WIDE, *CLOSE}) == 47
    assert set(RECIPES.values()) <= set(TRIED)
    assert PROTOCOL.recipe == RECIPES["lbfgs"]


def test_the_validation_figures_are_those_that_are_said(shipped: Series) -> None:
    """Of the protocol's docstring: the choice against its yardsticks, with fewer restarts."""
    said = protocol.__doc__ or ""
    figures = {leverage: yardstick(shipped, leverage=leverage) for leverage in (False, True)}
    assert figures == pytest.approx({False: 1.5938, True: 1.5402}, abs=2e-4)
    assert "1.5402 against 1.5938" in said
    chosen = validation_qlike(shipped, PROTOCOL.features, replace(RECIPES["lbfgs"], steps=3), 1)
    assert chosen == pytest.approx(1.5199, abs=2e-3)
    assert "the lowest, 1.5199, is taken" in said
