"""The hand's number is a product, only not the one that belongs: "dL/dz6 * w46 where dL/dz6 * x4
belongs"; or the right one with a factor too many or too few."""

from torch_ref.compare.explain.contractions import contraction_forms
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.forms import Form
from torch_ref.compare.explain.question import Question
from torch_ref.compare.explain.ratios import Ratio, one_factor
from torch_ref.compare.explain.search import Catalogue

MOST_FORMS = 12
STRANGE = 3


def wrong_product(question: Question) -> Answer | None:
    """A factor missing or extra, or another product where one belongs, a copy included.

    The sentence says what the hand has and what belongs there, as far as both are known.
    """
    catalogue = Catalogue.of(question)
    ratio = one_factor(question, catalogue)
    belongs = belonging(question, catalogue)
    if not (ratio or belongs):
        return None
    forms = _forms(question, catalogue)
    near = [form for form in forms if _strangeness(form, belongs) < STRANGE]
    given = sorted(near, key=lambda form: _strangeness(form, belongs))
    if not (ratio or given):
        return None
    if ratio and given and belongs and not _simpler(ratio, given[0], belongs):
        says = ""
    else:
        says = ratio.predicate if ratio else _compared(given[0], belongs)
    if given:
        where = f" where {belongs.product} belongs" if belongs else ""
        has = given[0].product + _equally(given, belongs) + where
        says = f"{says}: {has}" if says else f"is {has}"
    predicted = given[0].side if given else ratio.predicted if ratio else question.manual
    return Answer(says, predicted)


def some_product(question: Question) -> Answer | None:
    """A product or a copy where something else belongs that is no product."""
    forms = _forms(question, Catalogue.of(question))
    return Answer(f"is {forms[0].product}", forms[0].side) if forms else None


def belonging(question: Question, catalogue: Catalogue | None = None) -> Form | None:
    """The formula of the expected number, if it is a product with a consumer's gradient."""
    catalogue = catalogue or Catalogue.of(question)
    target, holds = question.expected, question.described_by
    found = catalogue.forms(target, question.consumers, holds)
    if found:
        return found[0]
    contracted = contraction_forms(question, target, question.consumers, holds)
    found = [form for form, _ in contracted][:1]
    found = found or catalogue.paired.forms(target, question.consumers, holds)
    return found[0] if found else None


def _forms(question: Question, catalogue: Catalogue) -> list[Form]:
    """Products that the hand's number is, with gradients that it gave before."""
    direct = ("loss",) if "loss" in question.consumers else ()
    allowed = (*question.upstream, *direct)
    forms = catalogue.forms(question.manual, allowed, question.answered_by, most=MOST_FORMS)
    if forms:
        return forms
    contracted = contraction_forms(
        question, question.manual, question.upstream, question.answered_by
    )
    forms = [form for form, _ in contracted][:1]
    return forms or catalogue.paired.forms(question.manual, allowed, question.answered_by)


def _strangeness(form: Form, belongs: Form | None) -> int:
    """How far a product is from what belongs there, 0 for a copy of another gradient.

    Equal numbers can be written as many products; the nearest one is what the author wrote.
    """
    if form.factor is None:
        return 0
    if belongs is None:
        return 1
    if form.gradient == belongs.gradient:
        same = belongs.factor is not None and form.factor.column == belongs.factor.column
        return 1 if same else 2
    if belongs.factor is not None and form.factor.column == belongs.factor.column:
        return 2
    return STRANGE


def _equally(given: list[Form], belongs: Form | None) -> str:
    """Beside a copy of another gradient, the product with the gradient that belongs there."""
    if given[0].factor is not None or belongs is None or given[0].gradient == belongs.gradient:
        return ""
    own = [form.product for form in given if form.gradient == belongs.gradient]
    return f" (= {own[0]})" if own else ""


def _simpler(ratio: Ratio, given: Form, belongs: Form) -> bool:
    """Whether to speak of a factor missing or extra, and not only of both products.

    Any two products have a ratio, but one such as (1 - x5) is seldom what the author left out.
    """
    return (
        ratio.factor.function.weight < 2
        or ratio.factor == belongs.factor
        or given.factor == belongs.factor
        or given.multiplier == ""
    )


def _compared(given: Form, belongs: Form | None) -> str:
    """What the formulas themselves tell, where both are of the same gradient; "" otherwise."""
    if belongs is None or given.gradient != belongs.gradient:
        return ""
    if given.factor is None and belongs.factor and given.constant == belongs.constant:
        return f"lacks the factor {belongs.factor.text}"
    if given.multiplier == "" and belongs.multiplier:
        return f"lacks the factor {belongs.multiplier}"
    if belongs.multiplier == "" and given.multiplier:
        return f"has the extra factor {given.multiplier}"
    return ""
