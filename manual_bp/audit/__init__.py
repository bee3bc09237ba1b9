"""Which printed lines of the assignment are wrong, by what, and what belongs there.

Every claim of `manual_bp.derivation` is checked twice, and both checks must agree:

* symbolically: SymPy differentiates the network itself, and printed minus right must cancel to 0;
* on random numbers: derivatives of L come from `manual_bp.network.backward`, every other one from
  a complex step, so no SymPy derivative is used.
"""

from manual_bp.audit.findings import Finding, audit, summary
from manual_bp.audit.mistakes import ContradictionError
from manual_bp.audit.numeric import POINTS
from manual_bp.audit.printing import in_ascii, plain

__all__ = ["POINTS", "ContradictionError", "Finding", "audit", "in_ascii", "plain", "summary"]
