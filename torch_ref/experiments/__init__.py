"""The module at work on real data; needs the extra `experiments`."""

from torch_ref.experiments.data import Series, SeriesError, log_returns, sp500
from torch_ref.experiments.features import Feature
from torch_ref.experiments.protocol import PROTOCOL, RECIPES, Protocol
from torch_ref.experiments.run import Result, volatility

__all__ = [
    "PROTOCOL",
    "RECIPES",
    "Feature",
    "Protocol",
    "Result",
    "Series",
    "SeriesError",
    "log_returns",
    "sp500",
    "volatility",
]
