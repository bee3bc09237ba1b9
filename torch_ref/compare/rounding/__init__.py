"""How far rounding alone can move a result: running error analysis over a recorded graph.

The graph runs once in float64. Beside each value v goes a bound e on the error that arithmetic in
the dtype under test could have made in it (Wilkinson 1963; Higham, Accuracy and Stability of
Numerical Algorithms, 2nd ed., 3.3). `walk` goes through the graph, `rules` says which operation is
bounded how, and the rules stand in `pointwise` (f of the numbers in one place), `linear` (sums and
products of many), `exponentials` (softmax and its kin), `resampling`, `factorizations` (of
matrices), `selection` (choices, which rounding can turn round) and `structure` (numbers that only
move). An operation without a rule is named, and its bound is infinite.
"""

from torch_ref.compare.rounding.operation import Arithmetic
from torch_ref.compare.rounding.walk import Walked, walk

__all__ = ["Arithmetic", "Walked", "walk"]
