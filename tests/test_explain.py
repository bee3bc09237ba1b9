"""What a wrong gradient looks like: each hypothesis on hand-made evidence.

Every draw's numbers carry noise within their bounds, as rounding would put there.
"""

import explain_batched
import explain_one_case
import explain_rows
import pytest
from explain_maker import SCENARIOS, draws

from torch_ref.compare.explain import explain

MODULES = (explain_batched, explain_one_case, explain_rows)  # their import registers scenarios


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_mistake_is_explained(name: str, seed: int) -> None:
    make, phrase = SCENARIOS[name]
    found = explain(draws(make, seed))
    assert phrase in found.sentence
    assert found.known


def test_every_module_has_scenarios() -> None:
    modules = {make.__module__ for make, _ in SCENARIOS.values()}
    assert modules == {module.__name__ for module in MODULES}
