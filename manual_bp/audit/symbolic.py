"""Derivatives in the network, carried out by SymPy, and whether two formulas are the same one."""

from collections.abc import Mapping
from functools import cache

import sympy

from manual_bp.derivation import NETWORK, cost
from manual_bp.latex import LOSS, Expression, Partial, sigma

ACTIVATIONS = {node: value for node, value in NETWORK.items() if value.func == sigma}


@cache
def same_value(left: Expression, right: Expression) -> bool:
    """Whether both are the same function of the inputs and parameters."""
    difference = written_out(by_node(left) - by_node(right))
    # sigma(z) of different z are algebraically independent, so cancelling decides
    return bool(sympy.cancel(sympy.together(difference)) == 0)


@cache
def by_node(expression: Expression) -> Expression:
    """The value in terms of the nodes x3, x4, x5, z6: derivatives carried out by SymPy."""
    x6 = sympy.Symbol("x6")
    carried_out = expression.replace(Partial, derivative)
    return carried_out.xreplace(_node_names(None)).xreplace({x6: NETWORK[x6]})


def derivative(quantity: Expression, variable: Expression) -> Expression:
    """What the printed d quantity / d variable is in the network.

    Of L it counts every path; of a node, the node's other inputs are held fixed, as in the text:
    there dz6/dx3 is w36, although x4 and x5 depend on x3 too. For the x of (1), L is (1) itself.
    """
    if quantity == LOSS:
        if variable not in reachable(LOSS):
            return sympy.diff(cost(variable), variable)
        result = sympy.diff(written_out(LOSS, variable), variable)
        return result.xreplace(_node_names(variable))
    return sympy.diff(NETWORK.get(quantity, quantity), variable)


def written_out(expression: Expression, stop: Expression = None) -> Expression:
    """Every node replaced by what it is computed from, down to the inputs or to `stop`."""
    for node in reversed(NETWORK):
        if node != stop:
            expression = expression.xreplace({node: NETWORK[node]})
    return expression


@cache
def reachable(quantity: Expression) -> frozenset[Expression]:
    """All names that `quantity` is computed from."""
    direct = NETWORK[quantity].free_symbols if quantity in NETWORK else set()
    return frozenset(direct).union(*map(reachable, direct))


@cache
def _node_names(stop: Expression) -> Mapping[Expression, Expression]:
    """Written-out nodes, and sigma of a node, by the node's name."""
    by_value = {written_out(node, stop): node for node in NETWORK if node not in (stop, LOSS)}
    return by_value | {value: node for node, value in ACTIVATIONS.items()}


def chain_rule(quantity: Expression, variable: Expression) -> Expression:
    """d quantity / d variable along every path, one node at a time, as d) derives it.

    Weights are carried out, derivatives of sigma and L are left as names; below z6, where all
    paths meet, dL/dz6 stands for the rest.
    """
    z6 = sympy.Symbol("z6")
    if quantity == LOSS and variable in reachable(z6):
        return Partial(LOSS, z6) * chain_rule(z6, variable)
    if quantity == variable:
        return sympy.Integer(1)
    if quantity not in NETWORK or (quantity == LOSS and variable not in reachable(LOSS)):
        return Partial(quantity, variable)  # no paths to follow, as for the x of (1)
    if variable not in reachable(quantity):
        return sympy.Integer(0)
    total = sympy.Integer(0)
    for node in sorted(NETWORK[quantity].free_symbols, key=str):
        slope = sympy.diff(NETWORK[quantity], node)
        weight = slope if slope.is_Symbol or slope.is_Number else Partial(quantity, node)
        if node == variable or variable in reachable(node):
            total += weight * chain_rule(node, variable)
    return total
