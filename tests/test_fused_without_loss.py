"""`fused_gradients(loss=False)`: the same gradients, no loss."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from test_fused import WIDE, Arrays, assert_means_agree, batch, tensors

import manual_bp
from torch_ref import fused_gradients, verify
from torch_ref.selftest.twins import mean_twin

without_loss = partial(fused_gradients, loss=False)
AS_THEY_ARE = pytest.mark.parametrize("make", [lambda one: one, tensors], ids=["numpy", "torch"])


def with_a_loss(given: tuple[Arrays, Arrays], found: tuple[Any, Arrays]) -> tuple[Any, Arrays]:
    """What is looked at together with a loss, so that only the gradients can be wrong."""
    assert found[0] is None
    assert tuple(found[1]) == manual_bp.PARAMETERS
    return fused_gradients(*given)[0], found[1]


@pytest.mark.parametrize("dtype", WIDE.values(), ids=WIDE)
def test_the_harness_finds_the_means_right(dtype: torch.dtype, device: str) -> None:
    twin = mean_twin({"gradients": without_loss})
    verify(twin, cases=24, dtype=dtype, device=device).assert_agreement()


@AS_THEY_ARE
@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("size", [1, 7, 512, 4099, (3, 5)])
def test_arrays(size: Any, dtype: str, make: Callable[[Arrays], Arrays]) -> None:
    given = tuple(map(make, batch(size, dtype)))
    found = without_loss(*given)
    assert_means_agree(given, with_a_loss(given, found))
    by_hand, expected = manual_bp.gradients(*given, loss=False)
    assert by_hand is None
    assert all(type(found[1][n]) is type(expected[n]) for n in expected if make is tensors)
    assert all(found[1][n].dtype == expected[n].dtype for n in expected)


@AS_THEY_ARE
def test_parameters_of_several_samples(make: Callable[[Arrays], Arrays]) -> None:
    parameters, inputs = batch(6)
    parameters["w13"] = np.linspace(-1, 1, 6)
    given = make(parameters), make(inputs)
    assert_means_agree(given, with_a_loss(given, without_loss(*given)))


def test_floats() -> None:
    given = tuple({n: v.item() for n, v in one.items()} for one in batch(1))
    found = without_loss(*given)
    assert {type(value) for value in found[1].values()} == {float}
    assert_means_agree(given, with_a_loss(given, found))


@pytest.mark.parametrize("change", [{"t": -1.0}, {"t": float("nan")}, {"x1": float("inf")}])
def test_bad_floats_are_refused(change: Arrays) -> None:
    given = [{n: v.item() for n, v in one.items()} for one in batch(1)]
    given[1] |= change
    with pytest.raises(ValueError, match=r"is not (positive|finite)"):
        without_loss(*given)
    loss, gradients = without_loss(*given, check_values=False)
    assert loss is None
    assert set(gradients) == set(manual_bp.PARAMETERS)
