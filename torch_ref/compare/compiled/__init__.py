"""The walks and the comparison compiled, for runs of very many cases.

Nobody's gradients are compiled: the hand and autograd run on every case as they always do, and what
they give is what is judged. What is compiled is the judge: `tracing` runs its code once, on two
cases, and takes it down as `formulas` of the numbers of one (`operations` and `algebra`: how);
`emit` writes them out in C, `kernel` runs them, and `judging` says when. There is no second
copy of a rule.

exp, log and sigmoid are this project's own in C and not torch's, so a reference value, and with it
a ratio in float64, may come out a rounding or two apart from the plain way's. Both are within the
same bounds.
"""

from torch_ref.compare.compiled.judging import COMPILED_FROM, Compiled, Judged

__all__ = ["COMPILED_FROM", "Compiled", "Judged"]
