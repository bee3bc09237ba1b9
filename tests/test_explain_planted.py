"""Every bug planted in the assignment network, and what the report's explanation must say of it."""

from dataclasses import replace
from functools import partial

import pytest
from test_planted_bugs import BACKWARD_BUGS, FORWARD_BUGS, broken, run

from torch_ref import assignment_twin, verify

CASES = 2048

# what is wrong: a phrase of the sentence; None where no pattern is known
PHRASES: dict[str, str | None] = {
    "sign of dL/dx": "dL/dx6 has the wrong sign",
    "wrong power in dL/dx": "dL/dx6 is x6 times too large",
    "x and t exchanged": "dL/dx6 is (t - x6) / t^2 where (x6 - t) / x6^2 belongs",
    "pre- for post-activation in dL/dx": "dL/dx6 is (z6 - t) / z6^2 where (x6 - t) / x6^2 belongs",
    "missing rho'": "dL/dz6 lacks the factor 2 * z6",
    "rho' without its 2": "dL/dz6 is 1/2 of the truth",
    "rho' of the post-activation": "dL/dz6 is z6 times too large",
    "z6^2 for z6^3, as printed in a)": "dL/dz6 is z6 times too large: dL/dx6 * 2 * z6^2 where "
    "dL/dx6 * 2 * z6 belongs",
    "clipped gradient": "dL/dz6 has its factor beside dL/dx6 clipped at 3",
    "pre- for post-activation in dL/dw36": "dL/dw36 is dL/dz6 * z3 where dL/dz6 * x3 belongs",
    "weight for value in dL/dw46": "dL/dw46 is dL/dz6 * w46 where dL/dz6 * x4 belongs",
    "value of the wrong node": "(= dL/dz6 * x4) where dL/dz6 * x5 belongs",
    "bias treated as a weight": "dL/db6 is b6 times too large",
    "mean for sum": "dL/db6 is 1/2048 of the truth: mean over the batch where the sum belongs",
    "batch mean for each sample's own": "dL/db6 has in every case its mean over the batch",
    "weight of the wrong edge": "dL/dx5 is dL/dz6 * w46 where dL/dz6 * w56 belongs",
    "missing weight": "dL/dx5 lacks the factor w56",
    "stale weight, already updated": "dL/dx5 has w56 - 0.01 * dL/dw56 in the place of w56",
    "missing sigma' at node 5": "dL/dz5 lacks the factor sigma'(z5)",
    "sigma for sigma'": "dL/dx5 * sigma(z5) where dL/dx5 * sigma'(z5) belongs",
    "sigma' of the post-activation": "dL/dz5 is dL/dx5 * sigma'(x5) where dL/dx5 * sigma'(z5) bel",
    "sign in sigma'": "dL/dz5 is dL/dx5 * x5 * (1 + x5) where dL/dx5 * sigma'(z5) belongs",
    "sigma' with exp that overflows": "dL/dz5 is 0 exactly where z5 < -3",
    "sigma' left out of dL/dw35": "dL/dw35 lacks the factor sigma'(z5)",
    "sigma' left out of dL/db5": "dL/db5 lacks the factor sigma'(z5)",
    "dL/dx4 overwritten by dL/dx5": "dL/dx4 is dL/dx5 (= dL/dz6 * w56) where dL/dz6 * w46 belongs",
    "chain through the wrong node": "dL/dz4 is dL/dx5 * sigma'(z4) where dL/dx4 * sigma'(z4) bel",
    "sigma' of the wrong node": "dL/dz4 is dL/dx4 * sigma'(z5) where dL/dx4 * sigma'(z4) belongs",
    "clamp that the forward has not": "0.0003352 * dL/dx4 where dL/dx4 * sigma'(z4) belongs, "
    "exactly where |z4| > ",
    "own output for input": "dL/dw34 is dL/dz4 * x4 where dL/dz4 * x3 belongs",
    "sign of a bias": "dL/db4 has the wrong sign",
    "missing skip connection": "dL/dx3 lacks the path through z6: w36 * dL/dz6",
    "overwritten instead of accumulated": "dL/dx3 has only the path through z4: w34 * dL/dz4",
    "a path counted twice": "dL/dx3 counts twice the path through z4: w34 * dL/dz4",
    "a path subtracted": "dL/dx3 subtracts the path through z4: w34 * dL/dz4",
    "weights exchanged between paths": "has w35 and w34 exchanged between the paths through z5",
    "a path without its sigma'": "path through z5: it lacks the factor sigma'(z5)",
    "missing sigma' at node 3": "dL/dz3 lacks the factor sigma'(z3)",
    "tanh' for sigma'": "dL/dz3 is dL/dx3 * (1 - x3^2) where dL/dx3 * sigma'(z3) belongs",
    "the other input": "dL/dw13 is dL/dz3 * x2 where dL/dz3 * x1 belongs",
    "the neighbour's input": "dL/dw13 is dL/dz3 * x1 of the case before where dL/dz3 * x1 belongs",
    "missing input": "dL/dw23 lacks the factor x2",
    "a step too early": "dL/db3 lacks the factor sigma'(z3)",
    "weight of the other input": "dL/dx1 is dL/dz3 * w23 where dL/dz3 * w13 belongs",
    "value for weight": "(= dL/dz3 * x2) where dL/dz3 * w23 belongs",
    "not a number": "dL/dx2 is not a number everywhere",
    "the plus missing in z6, as printed in b)": None,  # forward mistakes: the hand's values differ
    "a node left out of z6": None,
    "bias left out": None,
    "rho left out": "dL/dx6 is (z6 - t) / z6^2 where (x6 - t) / x6^2 belongs",
    "activation left out": "dL/dx6 is wrong exactly where w46 != 0",
}


def test_every_planted_bug_is_in_the_table() -> None:
    assert set(PHRASES) == {*BACKWARD_BUGS, *FORWARD_BUGS}


def test_four_of_five_are_explained() -> None:
    assert sum(phrase is not None for phrase in PHRASES.values()) >= 0.8 * len(PHRASES)


@pytest.mark.parametrize("bug", PHRASES)
def test_a_planted_bug_is_explained(bug: str) -> None:
    function = "_backward" if bug in BACKWARD_BUGS else "_forward"
    right, wrong, first = {**BACKWARD_BUGS, **FORWARD_BUGS}[bug]
    twin = replace(assignment_twin(), manual=partial(run, broken(function, right, wrong)))
    sentence = verify(twin, cases=CASES).explanation
    phrase = PHRASES[bug]
    assert (phrase or f"dL/d{first}: no known pattern") in sentence
