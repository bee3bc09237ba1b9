"""How the tensors of a Function's twin are named: arguments, upstream gradients, second order."""

import re

from torch_ref.compare.twin import Values

TWICE, DIRECTION = " (twice)", "direction of "
UPSTREAM = re.compile(r"upstream( \d+)?")
MADE_HERE = re.compile(rf"{UPSTREAM.pattern}|.*{re.escape(TWICE)}|{DIRECTION}.*|loss")


def is_second_order(name: str) -> bool:
    """Whether a quantity is there for double backward alone."""
    return name.endswith(TWICE) or name.startswith(DIRECTION)


def parts(values: Values) -> tuple[Values, Values, Values]:
    """The tensors of one call, those of the twice differentiated one, and the directions."""
    again = {n.removesuffix(TWICE): v for n, v in values.items() if n.endswith(TWICE)}
    directions = {
        n.removeprefix(DIRECTION): v for n, v in values.items() if n.startswith(DIRECTION)
    }
    once = {
        name: value
        for name, value in values.items()
        if not name.endswith(TWICE) and not name.startswith(DIRECTION)
    }
    return once, again, directions


def split(values: Values) -> tuple[Values, Values]:
    """The arguments of a call, and its upstream gradients."""
    upstream = {name: value for name, value in values.items() if UPSTREAM.fullmatch(name)}
    return {n: v for n, v in values.items() if n not in upstream}, upstream
