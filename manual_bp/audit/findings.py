"""The audit itself: every claim is checked twice, and both checks must agree."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from manual_bp.audit.mistakes import ContradictionError, left_side, malformed, mistake
from manual_bp.audit.numeric import (
    POINTS,
    ROUNDING,
    Numbers,
    numbers,
    random_point,
    relative_gap,
)
from manual_bp.audit.symbolic import same_value
from manual_bp.derivation import CLAIMS, Claim
from manual_bp.latex import reading_problem


@dataclass(frozen=True)
class Finding:
    """What was found out about one printed line.

    problem: what is wrong, in words; belongs: what should stand there, as LaTeX (both empty where
    the line is right); evidence: the numbers; repeats: the earlier line that prints the same.
    """

    label: str
    printed: str
    right: bool
    problem: str
    belongs: str
    evidence: str
    repeats: str = ""

    def to_dict(self) -> dict[str, object]:
        """The fields by name, for JSON."""
        return asdict(self)


def audit(claims: Sequence[Claim] = CLAIMS) -> tuple[Finding, ...]:
    """A finding for every claim, in the order of the text.

    Raises ContradictionError where the two checks of a line disagree.
    """
    point = random_point()
    findings: list[Finding] = []
    for claim in claims:
        finding = _check(claim, point, _repeated(claim, findings))
        findings.append(finding)
    return tuple(findings)


def summary(findings: Sequence[Finding]) -> str:
    """How many lines are wrong, right and repeated; then a remark on every repeated line.

    A line that only repeats the one before is neither wrong nor right here, but counted apart.
    """
    repeats = Counter(finding.repeats for finding in findings if finding.repeats)
    judged = [finding.right for finding in findings if not finding.repeats]
    counts = (
        f"{len(findings)} printed lines checked: {judged.count(False)} wrong, "
        f"{judged.count(True)} right, {repeats.total()} that only repeat the line before"
    )
    remarks = [
        f"remark: {label} is printed {count + 1} times, word for word: once is enough"
        for label, count in repeats.items()
    ]
    return "\n".join([counts, *remarks])


def _repeated(claim: Claim, before: Sequence[Finding]) -> str:
    """The label of the first of the lines just before that print the same, word for word."""
    if not before or before[-1].printed != claim.printed:
        return ""
    return before[-1].repeats or before[-1].label


def _check(claim: Claim, point: Mapping[str, Numbers], repeats: str) -> Finding:
    reason = reading_problem(claim.printed)
    same = same_value(claim.of, claim.expression)
    left, right = numbers(claim.of, point), numbers(claim.expression, point)
    gap = relative_gap(left, right)
    if same != bool(np.all(gap <= ROUNDING)):
        raise ContradictionError(
            f"{claim.label}: symbolically {'right' if same else 'wrong'}, but both sides differ "
            f"by up to {gap.max():.1e} at {POINTS} random points."
        )
    if same and not reason:
        evidence = f"equal at {POINTS} random points to {gap.max():.0e}"
        return Finding(claim.label, claim.printed, True, "", "", evidence, repeats)
    problem, belongs = malformed(claim, reason) if reason else mistake(claim, point)
    first = int(np.argmax(gap > ROUNDING))
    formula = "what can be read" if reason else "the printed formula"
    evidence = (
        f"differ at {int(np.sum(gap > ROUNDING))} of {POINTS} random points; at the first, "
        f"{left_side(claim)} = {left[first]:.6g}, {formula} = {right[first]:.6g}"
    )
    return Finding(claim.label, claim.printed, False, problem, belongs, evidence, repeats)
