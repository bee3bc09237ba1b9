"""The network's forward formulas for the peers that differentiate a plain function themselves."""

from collections.abc import Mapping
from typing import Any

# Every value between inputs and loss: what is added to one has the gradient for that value.
INTERMEDIATE = ("z3", "x3", "z4", "x4", "z5", "x5", "z6", "x6")


def losses(
    p: Mapping[str, Any], x1: Any, x2: Any, t: Any, library: Any, added: Mapping[str, Any] | None
) -> Any:
    """The loss of each sample; p: parameters; library: has sigmoid and log.

    added: zeros by the names in INTERMEDIATE, to differentiate for; None adds nothing.
    """
    sigmoid = library.sigmoid

    def at(name: str, value: Any) -> Any:
        return value if added is None else value + added[name]

    x3 = at("x3", sigmoid(at("z3", p["w13"] * x1 + p["w23"] * x2 + p["b3"])))
    x4 = at("x4", sigmoid(at("z4", p["w34"] * x3 + p["b4"])))
    x5 = at("x5", sigmoid(at("z5", p["w35"] * x3 + p["b5"])))
    z6 = at("z6", p["w36"] * x3 + p["w46"] * x4 + p["w56"] * x5 + p["b6"])
    ratio = t / at("x6", z6 * z6)
    return ratio - library.log(ratio) - 1
