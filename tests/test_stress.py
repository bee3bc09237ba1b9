"""What the harness does to every twin's inputs, and that it finds what ordinary draws do not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_ref import Draw, Twin, verify
from torch_ref.compare import STRESS, Cases
from torch_ref.compare.layout import copy_of
from torch_ref.compare.stress import CHANGES, stressed

Values = dict[str, Tensor]


def changed(stress: str, value: Tensor, cases: bool = False) -> Tensor:
    return stressed({"x": value}, stress, np.random.default_rng(0), cases)["x"]


@pytest.mark.parametrize("stress", STRESS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_shape_dtype_and_signs_stay(stress: str, dtype: torch.dtype) -> None:
    value = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0)).to(dtype).abs() + 0.5
    for cases in (False, True):
        after = changed(stress, value, cases)
        assert (after.shape, after.dtype) == (value.shape, dtype)
        assert (after >= 0).all()
    for odd in (torch.tensor(2.0).to(dtype), torch.zeros(0, 3, dtype=dtype)):
        assert changed(stress, odd).shape == odd.shape


def test_integers_and_booleans_stay_as_they_are() -> None:
    values = {"i": torch.tensor([3, 1, 3]), "b": torch.tensor([True, False])}
    for stress in set(STRESS) - {"equal"}:
        after = stressed(values, stress, np.random.default_rng(0), False)
        assert all(torch.equal(after[name], values[name]) for name in values)


@pytest.mark.parametrize("cases", [False, True])
def test_equal_takes_inputs_together(cases: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    a, b, c = (torch.randn(60, 5, generator=generator).double() for _ in range(3))
    mask, label = torch.rand(60, 5, generator=generator) < 0.5, torch.arange(300).reshape(60, 5) % 4
    order = torch.stack([torch.randperm(5, generator=generator) for _ in range(60)])
    values = {"a": a, "b": b, "c": c[:, :4], "m": mask, "i": label, "order": order}
    after = stressed(values, "equal", np.random.default_rng(0), cases)
    assert torch.equal(after["a"], a)
    assert torch.equal(after["c"], c[:, :4])
    assert 0.3 < (after["b"].abs() == a.abs()).double().mean() < 0.7
    assert torch.equal(after["b"].sign(), b.sign())
    rows = 60 if cases else 1
    for name in ("m", "i"):
        in_case = after[name].reshape(rows, -1)
        assert (in_case == in_case[:, :1]).all()
    if cases:
        assert torch.equal(after["order"], order)
        assert 0.2 < after["m"][:, 0].double().mean() < 0.8
    alone = stressed({"order": order[0]}, "equal", np.random.default_rng(0), False)
    assert torch.equal(alone["order"], order[0])


def test_each_does_what_its_name_says() -> None:
    value = torch.randn(40, 6, generator=torch.Generator().manual_seed(1)).double()
    assert changed("scaled up", value).abs().max() > 2 * value.abs().max()
    ratio = changed("scaled down", value) / value
    assert ratio.max() < 0.5
    assert ratio.std() < 1e-12
    per_case = changed("scaled down", value, cases=True) / value
    assert per_case.std(1).max() < 1e-12 < per_case.std(0).min()
    assert (changed("mixed scales", value) / value).abs().log10().std() > 0.5
    assert len(changed("tied", value).unique()) == 2
    zeros = (changed("zeros", value) == 0).double().mean()
    assert 0.2 < zeros < 0.5
    assert ((2 * changed("grid", value)) % 1 == 0).all()
    strided = changed("strided", value)
    assert torch.equal(strided, value)
    assert not strided.is_contiguous()
    ways = [stressed({"x": value}, "expanded", np.random.default_rng(seed), False)["x"]
            for seed in range(20)]  # fmt: skip
    assert {way.stride() for way in ways} == {(0, 1), (0, 0)}
    for way in ways:
        wanted = value[0] if way.stride(1) else value[0, 0]
        assert (way[3] == wanted).all()
    ways = [stressed({"x": value}, "strided", np.random.default_rng(seed), False)["x"]
            for seed in range(20)]  # fmt: skip
    assert {way.stride() for way in ways} == {(2, 4 * len(value)), (value.shape[1] + 2, 1)}
    assert {way.storage_offset() for way in ways} == {0, value.shape[1] + 3}
    image = torch.randn(2, 3, 4, 5)
    ways = [stressed({"x": image}, "strided", np.random.default_rng(seed), False)["x"]
            for seed in range(20)]  # fmt: skip
    last = [way.is_contiguous(memory_format=torch.channels_last) for way in ways]
    assert {False, True} == set(last)
    assert all(torch.equal(way, image) for way in ways)


@pytest.mark.parametrize("stress", ["strided", "expanded", "zeros"])
def test_a_copy_is_laid_out_like_the_original(stress: str) -> None:
    value = changed(stress, torch.randn(4, 5, 2))
    copy = copy_of(value)
    assert torch.equal(copy, value)
    assert (copy.stride(), copy.storage_offset()) == (value.stride(), value.storage_offset())
    assert copy.data_ptr() != value.data_ptr()


def inputs(draw: Draw) -> Values:
    return {"x": draw.normal(), "w": draw.normal()}


def reference(values: Values) -> Values:
    z = values["w"] * values["x"]
    return {"z": z, "loss": torch.log(torch.cosh(z / 50)) + z**2}


def right(values: Values) -> Values:
    z = values["w"] * values["x"]
    dz = torch.tanh(z / 50) / 50 + 2 * z
    return {"z": dz, "w": dz * values["x"]}


RIGHT = Twin("log cosh", inputs, reference, right)
# Branches that normal numbers, two of which are multiplied, reach once in 10^5 or never.
RARE = {
    "clamp": lambda z, dz: torch.where(z.abs() > 30, torch.sign(z) * 60, dz),
    "overflow guard": lambda z, dz: torch.where(z > 600, torch.zeros_like(dz), dz),
    "tiny taken for zero": lambda z, dz: torch.where(z.abs() < 1e-9, torch.zeros_like(dz), dz),
    "equality": lambda z, dz: torch.where(z == 1.5, torch.zeros_like(dz), dz),
    "exact zero": lambda z, dz: torch.where(z == 0, torch.ones_like(dz), dz),
}


def test_the_twin_without_a_rare_branch_is_right() -> None:
    for dtype in (torch.float64, torch.float32):
        verify(RIGHT, cases=20_000, dtype=dtype).assert_agreement()


@pytest.mark.parametrize("branch", RARE)
def test_a_rare_branch_is_found(branch: str) -> None:
    def manual(values: Values) -> Values:
        z = values["w"] * values["x"]
        dz = RARE[branch](z, right(values)["z"])
        return {"z": dz, "w": dz * values["x"]}

    twin = replace(RIGHT, manual=manual)
    report = verify(twin, cases=100_000, explain=False)
    assert report.first_wrong == "z"
    assert report.rows[0].stratum in STRESS
    assert verify(replace(twin, stress=()), cases=20_000).verdict == "agree"


def test_a_layout_is_found() -> None:
    """A kernel that is right for contiguous inputs alone."""

    def drawn(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(3, 4)), "w": draw.normal(shape=(3, 4))}

    def product(values: Values) -> Values:
        return {"loss": (values["x"] * values["w"]).sum()}

    def manual(values: Values) -> Values:
        w = values["w"]
        return {"x": w.clone() if w.is_contiguous() else w.flip(1)}

    report = verify(Twin("layout", drawn, product, manual), explain=False)
    assert report.first_wrong == "x"
    assert report.rows[0].stratum in ("strided", "expanded")


def test_what_leaves_the_domain_is_put_back() -> None:
    """ln of 0 is infinite: where zeros would go, the numbers stay as the author drew them."""

    def drawn(draw: Draw) -> Values:
        return {"x": draw.uniform(0.5, 2.0)}

    def log(values: Values) -> Values:
        return {"loss": torch.log(values["x"])}

    twin = Twin("log", drawn, log, lambda v: {"x": 1 / v["x"]}, stress=("zeros",))
    drawn_inputs = Cases(twin, torch.float64, torch.device("cpu"), 0).shard(0)["x"]
    assert (drawn_inputs > 0).all()
    report = verify(twin, cases=1000)
    report.assert_agreement()
    assert report.rows[0].undecided == 0


def test_cases_do_not_depend_on_how_many_there_are() -> None:
    one = Cases(RIGHT, torch.float64, torch.device("cpu"), 3)
    many = next(iter(one.batches(1000))).inputs["x"]
    few = next(iter(one.batches(10))).inputs["x"]
    assert torch.equal(many[:10], few)
    assert torch.equal(one.case(7).inputs["x"], many[7:8])


def test_the_names_and_the_changes_are_the_same() -> None:
    assert tuple(CHANGES) == STRESS
