"""Returns of a price, cut into years to learn from and years to be judged on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SP500_TRAIN = 3772  # returns to 2013-12-31; the five years after it are the test
BURN_IN = 250  # days that only start the recursions: a year, and never learnt from


class SeriesError(ValueError):
    """A series that no forecast can be made from; the message is one clear sentence."""


@dataclass(frozen=True)
class Series:
    """Daily returns in percent, shape (n,), float64, with their dates; the first `train` to learn.

    Squared returns are the proxy of the variance that is to be forecast: they are right on
    average, and QLIKE ranks forecasts by them as it would by the variance itself
    (Patton, Journal of Econometrics 160(1), 2011).
    Raises SeriesError for wrong shapes, numbers that are not finite, or too few days.
    """

    name: str
    dates: Array
    returns: Array
    train: int

    def __post_init__(self) -> None:
        if self.returns.ndim != 1 or self.dates.shape != self.returns.shape:
            raise SeriesError(
                "returns and dates must have one shape (n,); got "
                f"{self.returns.shape} and {self.dates.shape}."
            )
        if not np.isfinite(self.returns).all():
            where = int(np.flatnonzero(~np.isfinite(self.returns))[0])
            raise SeriesError(
                f"returns must be finite; number {where} is {self.returns[where]}: leave it out."
            )
        if not BURN_IN + 100 <= self.train < len(self.returns):
            raise SeriesError(
                f"train must leave {BURN_IN} returns to start from, 100 to learn from and 1 to be "
                f"judged on; got train={self.train} of {len(self.returns)} returns."
            )

    @property
    def variance(self) -> Array:
        """The proxy: squared returns, percent^2, shape (n,)."""
        return self.returns * self.returns

    @property
    def test(self) -> int:
        """How many returns come after the training years."""
        return len(self.returns) - self.train

    @property
    def learnt(self) -> Array:
        """The days that a loss is trained on, as indices: after the burn-in, return not zero."""
        return self._with_return(BURN_IN, self.train)

    @property
    def judged(self) -> Array:
        """The test days, as indices; QLIKE is infinite where the return is zero, so those go."""
        return self._with_return(self.train, len(self.returns))

    @property
    def zero_days(self) -> list[str]:
        """The dates of the returns that are zero, and so neither learnt from nor judged."""
        return [self.date(int(day)) for day in np.flatnonzero(self.returns == 0)]

    def date(self, day: int) -> str:
        """Of the return with that index: YYYY-MM-DD."""
        return str(self.dates[day])[:10]

    def until(self, end: int, train: int) -> "Series":
        """The first `end` returns as a series of their own, of which `train` are learnt from."""
        return Series(self.name, self.dates[:end], self.returns[:end], train)

    def _with_return(self, start: int, end: int) -> Array:
        return start + np.flatnonzero(self.returns[start:end] != 0)


def log_returns(prices: Array) -> Array:
    """100 ln(p[i + 1] / p[i]), percent, float64, shape (n - 1,), of prices of shape (n,).

    Raises SeriesError for a price that is not positive and finite.
    """
    found = np.asarray(prices, dtype=np.float64)
    bad = np.flatnonzero(~((found > 0) & (found < np.inf)))
    if bad.size:
        raise SeriesError(
            f"prices must be positive and finite; number {bad[0]} is {found[bad[0]]}: leave it out."
        )
    returns: Array = 100 * np.diff(np.log(found))
    return returns


def sp500() -> Series:
    """The S&P 500, adjusted close from 1999 to 2018, as the library `arch` ships it."""
    from arch.data import sp500 as shipped

    prices = shipped.load()["Adj Close"]
    dates = prices.index.to_numpy().astype("datetime64[D]")[1:]
    return Series("S&P 500", dates, log_returns(prices.to_numpy()), SP500_TRAIN)
