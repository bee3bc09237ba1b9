"""The self-test of power: `manual_bp` mutated, and each mutant caught or proved to be no change."""

from torch_ref.selftest.run import MutantRow, SelftestResult, run_selftest

__all__ = ["MutantRow", "SelftestResult", "run_selftest"]
