"""Where mistakes enter, whose they are, what they look like; and what is a convention."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from torch_ref import Draw, Twin, verify
from torch_ref.compare.diagnosis import Local
from torch_ref.compare.sides.hand import RANDOM
from torch_ref.compare.witness import finite_difference

Values = dict[str, Tensor]


def inputs(draw: Draw) -> Values:
    return {"x": draw.normal(), "w": draw.normal(), "u": draw.normal()}


def reference(values: Values) -> Values:
    h = values["w"] * values["x"]
    s = torch.sigmoid(h)
    y = s * values["u"]
    return {"h": h, "s": s, "y": y, "loss": y * y}


def backward(values: Values, *, ds_factor: bool = True, dw_sign: int = 1) -> Values:
    h = values["w"] * values["x"]
    s = torch.sigmoid(h)
    dy = 2 * s * values["u"]
    ds = dy * values["u"] if ds_factor else dy
    dh = ds * s * torch.sigmoid(-h)
    dw, dx = dw_sign * dh * values["x"], dh * values["w"]
    return {"y": dy, "s": ds, "u": dy * s, "h": dh, "w": dw, "x": dx}


TWIN = Twin("gate", inputs, reference, backward)


def test_the_right_one_agrees() -> None:
    verify(TWIN, cases=20_000).assert_agreement()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_mistake_is_told_from_what_inherits_it(dtype: torch.dtype) -> None:
    report = verify(
        replace(TWIN, manual=lambda v: backward(v, ds_factor=False)), cases=2000, dtype=dtype
    )
    assert [row.name for row in report.rows if row.verdict == "differ"] == ["s", "h", "w", "x"]
    assert report.mistakes == ("s",)
    assert report.explanation == "dL/ds lacks the factor u: dL/dy where dL/dy * u belongs"
    assert report.diagnosis.blame == "manual"


def test_two_mistakes_are_both_named() -> None:
    def manual(values: Values) -> Values:
        return backward(values, ds_factor=False, dw_sign=-1)

    report = verify(replace(TWIN, manual=manual), cases=2000)
    assert report.first_wrong == "s"
    assert report.mistakes == ("s", "w")
    assert report.explanation.split("; ") == [
        "dL/ds lacks the factor u: dL/dy where dL/dy * u belongs",
        "dL/dw has the wrong sign",
    ]
    with pytest.raises(AssertionError, match="Mistakes enter at dL/ds and at dL/dw"):
        report.assert_agreement()
    as_dict = report.to_dict()
    assert as_dict["mistakes"] == ["s", "w"]
    assert as_dict["explanation"] == report.explanation


class WrongSigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return upstream * torch.sigmoid(x) * torch.sigmoid(-x) * (1 + 1e-4)


def test_a_mistake_in_the_reference_is_blamed_on_the_reference() -> None:
    def wrong(values: Values) -> Values:
        h = values["w"] * values["x"]
        s = WrongSigmoid.apply(h)
        y = s * values["u"]
        return {"h": h, "s": s, "y": y, "loss": y * y}

    report = verify(replace(TWIN, reference=wrong), cases=2000)
    assert report.first_wrong == "h"
    assert report.diagnosis.blame == "reference"
    with pytest.raises(AssertionError, match="the reference's dL/dh is wrong, not the hand's"):
        report.assert_agreement()


def test_a_loss_that_does_not_move_has_derivative_zero() -> None:
    def reference(values: Values) -> Values:
        masked = torch.where(values["mask"], values["x"], 0.0)
        return {"masked": masked, "loss": masked + 1}

    twin = Twin("masked", lambda draw: {}, reference, lambda values: {})
    for mask, slope in ((False, 0.0), (True, 1.0)):
        values = {"x": torch.tensor([3.0], dtype=torch.float64), "mask": torch.tensor([mask])}
        derivative, error = finite_difference(twin, values, "x", 0)
        assert (derivative, error) == pytest.approx((slope, 0.0), abs=1e-9)


def test_the_witness_is_right_to_many_digits() -> None:
    values = {n: torch.tensor([v], dtype=torch.float64) for n, v in (("x", 0.7), ("w", -1.3),
              ("u", 2.1))}  # fmt: skip
    truth = backward(values)
    for name in ("y", "s", "h", "w", "x", "u"):
        derivative, error = finite_difference(TWIN, values, name, 0)
        assert abs(derivative - float(truth[name])) <= max(10 * error, 1e-10)
        assert error < 1e-8


def relu_inputs(draw: Draw) -> Values:
    return {"z": draw.normal(), "w": draw.uniform(0.5, 2.0)}


def relu(values: Values) -> Values:
    a = torch.relu(values["z"])
    return {"a": a, "loss": values["w"] * a}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_kink_is_judged_by_torchs_convention_and_marked(dtype: torch.dtype) -> None:
    """relu'(0) is 0 in torch; 1 is as good a subgradient, but another convention."""
    right = Twin("relu", relu_inputs, relu, lambda v: {"z": v["w"] * (v["z"] > 0)})
    report = verify(right, cases=5000, dtype=dtype)
    report.assert_agreement()
    assert 0 < report.kinks < 0.3
    assert verify(replace(right, stress=()), cases=5000, dtype=dtype).kinks == 0

    other = verify(replace(right, manual=lambda v: {"z": v["w"] * (v["z"] >= 0)}), dtype=dtype)
    assert other.first_wrong == "z"
    assert other.rows[0].only_at_kinks
    with pytest.raises(AssertionError, match="only in cases where a kink or a tie is met exactly"):
        other.assert_agreement()


def test_a_mistake_beside_a_kink_is_no_convention() -> None:
    wrong = Twin("relu", relu_inputs, relu, lambda v: {"z": v["w"] * (v["z"] > 0.5)})
    assert not verify(wrong, cases=5000).rows[0].only_at_kinks


def test_a_factor_of_a_path_is_found_where_the_path_is_nothing_in_places() -> None:
    """Batch norm step by step, the 2 of its square forgotten; some of g is 0 under a stress."""

    def reference(v: Values) -> Values:
        mean = v["x"].mean(0)
        var = ((v["x"] - mean) ** 2).mean(0)
        normal = (v["x"] - mean) / torch.sqrt(var + 1e-5)
        return {"var": var, "normal": normal, "loss": (v["g"] * normal * v["u"]).sum()}

    def manual(v: Values) -> Values:
        apart = v["x"] - v["x"].mean(0)
        inverse = 1 / ((apart**2).mean(0) + 1e-5).sqrt()
        dnormal = v["u"] * v["g"]
        dvar = -0.5 * inverse**3 * (dnormal * apart).sum(0)
        dapart = dnormal * inverse + apart * dvar / len(apart)
        return {"normal": dnormal, "var": dvar, "x": dapart - dapart.mean(0)}

    def inputs(draw: Draw) -> Values:
        shape = (draw.size(2, 6), 3)
        return {
            "x": draw.normal(2, 3, shape),
            "g": draw.normal(1, 0.3, (3,)),
            "u": draw.normal(shape=shape),
        }

    report = verify(Twin("batch norm", inputs, reference, manual), cases=60)
    assert report.explanation == "dL/dx has a wrong path through var: it is 1/2 of the truth"


def test_what_agrees_where_hardly_anything_can_be_judged_is_told() -> None:
    """A clipped objective inside its limits: two equal arguments of a minimum."""

    def reference(v: Values) -> Values:
        ratio = torch.exp(v["new"] - v["old"])
        clipped = ratio.clamp(0.8, 1.2)
        return {"loss": -torch.min(ratio * v["gain"], clipped * v["gain"])}

    def manual(v: Values) -> Values:
        ratio = torch.exp(v["new"] - v["old"])
        stopped = torch.where(v["gain"] > 0, ratio > 1.2, ratio < 0.8)
        return {"new": torch.where(stopped, 0.0, -v["gain"] * ratio)}

    def inputs(draw: Draw) -> Values:
        new = draw.normal(-1, 0.5)
        return {"new": new, "old": new + draw.normal(0, 0.08), "gain": draw.normal()}

    report = verify(Twin("clipped", inputs, reference, manual, stress=()), cases=5000)
    report.assert_agreement()
    assert "More than 90% of dL/dnew is undecided: a mistake there is not seen." in report.notes


def test_where_every_case_meets_a_kink_nothing_is_put_down_to_it() -> None:
    """|s_i - s_j| has one on its diagonal."""

    def reference(values: Values) -> Values:
        apart = (values["s"][:, None] - values["s"]).abs()
        return {"loss": (apart**2 * values["u"]).sum()}

    def manual(values: Values) -> Values:
        both = 2 * (values["s"][:, None] - values["s"]) * values["u"]
        return {"s": both.sum(1) + both.sum(0)}

    twin = Twin(
        "pairs",
        lambda draw: {"s": draw.normal(shape=(4,)), "u": draw.normal(shape=(4, 4))},
        reference,
        manual,
    )
    report = verify(twin, cases=40)
    assert report.kinks > 0.9
    assert "where a kink" not in " ".join(report.closing_lines())


def test_only_the_dtype_under_test_may_show_a_mistake() -> None:
    """A hand that is right in float64 and wrong in float32 is explained in float32."""

    def manual(values: Values) -> Values:
        found = backward(values)
        sign = 1 if values["x"].dtype == torch.float64 else -1
        return {**found, "w": sign * found["w"]}

    twin = replace(TWIN, manual=manual)
    verify(twin, cases=2000).assert_agreement()
    report = verify(twin, cases=2000, dtype=torch.float32)
    assert report.mistakes == ("w",)
    assert report.explanation == "dL/dw has the wrong sign"


def test_at_a_kink_nobody_is_blamed() -> None:
    """A branch that the hand forgot at an equality: differences across it are no witness."""

    def reference(values: Values) -> Values:
        z = values["x"] * values["w"]
        return {"z": z, "loss": torch.where(z == 2, 0 * z, z)}

    def manual(values: Values) -> Values:
        return {"z": torch.ones_like(values["x"])}

    report = verify(Twin("equal", lambda d: {n: d.normal() for n in "xw"}, reference, manual))
    assert report.first_wrong == "z"
    assert report.diagnosis.blame == ""
    assert report.explanation == "dL/dz is wrong exactly where z == 2"


def test_a_factor_near_1_is_written_out() -> None:
    def manual(values: Values) -> Values:
        return {"w": 2 * values["w"] * values["x"] ** 2 * (1 + 1e-7)}

    twin = Twin("square", lambda d: {n: d.normal() for n in "xw"},
                lambda v: {"loss": (v["w"] * v["x"]) ** 2}, manual)  # fmt: skip
    assert verify(twin, cases=4000).explanation == "dL/dw is 1 + 1e-07 times the truth"


def test_a_shape_that_is_wrong_for_some_sizes_only() -> None:
    """Transposed: for square weights wrong numbers, for others a wrong shape."""

    def inputs(draw: Draw) -> Values:
        rows, columns = draw.size(1, 3), draw.size(1, 3)
        return {"x": draw.normal(shape=(5, columns)), "w": draw.normal(shape=(rows, columns))}

    def reference(values: Values) -> Values:
        y = values["x"] @ values["w"].T
        return {"y": y, "loss": (y**3).sum()}

    def manual(values: Values) -> Values:
        dy = 3 * (values["x"] @ values["w"].T) ** 2
        return {"y": dy, "w": values["x"].T @ dy}

    report = verify(Twin("transposed", inputs, reference, manual))
    assert report.first_wrong == "w"
    assert report.explanation in ("", "dL/dw is transposed")
    assert any("it looks transposed" in failure for failure in report.failures)


def test_a_forgotten_mask_is_said_with_its_place_though_zeros_hide_it() -> None:
    def inputs(draw: Draw) -> Values:
        shape = (draw.size(3, 6),)
        return {"x": draw.normal(shape=shape), "w": draw.normal(shape=shape),
                "keep": draw.booleans(shape=shape)}  # fmt: skip

    def reference(values: Values) -> Values:
        y = torch.where(values["keep"], values["x"] * values["w"], values["x"])
        return {"y": y, "loss": (y * y).sum()}

    def manual(values: Values) -> Values:
        dy = 2 * torch.where(values["keep"], values["x"] * values["w"], values["x"])
        return {"y": dy, "x": dy * values["w"]}

    explanation = verify(Twin("mask", inputs, reference, manual)).explanation
    assert explanation.endswith("dL/dy * w where dL/dy belongs, exactly where keep is False"), (
        explanation
    )


def test_a_number_added_is_said_though_it_shows_only_beside_zeros() -> None:
    def reference(values: Values) -> Values:
        y = torch.where(values["m"], values["x"], 2 * values["x"])
        return {"y": y, "loss": y * y / 2}

    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(), "m": draw.booleans()}

    def manual(values: Values) -> Values:
        return {"y": torch.where(values["m"], values["x"], 2 * values["x"]) + 1e-30}

    report = verify(Twin("added", inputs, reference, manual), cases=5000)
    assert report.explanation == "dL/dy has 1e-30 added to it"


def test_a_hand_that_draws_numbers_is_not_explained() -> None:
    """What its numbers look like says nothing of the code."""

    def manual(values: Values) -> Values:
        right = backward(values)
        return {name: value * (1 + torch.rand_like(value)) for name, value in right.items()}

    report = verify(replace(TWIN, manual=manual), cases=2000)
    assert report.failures == (RANDOM,)
    assert report.explanation == ""


def test_where_no_step_alone_is_wrong_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seldom: a difference just beyond the bounds of the whole, within those of every step."""
    monkeypatch.setattr(Local, "is_wrong", lambda local, name: False)
    report = verify(replace(TWIN, manual=lambda v: backward(v, dw_sign=-1)), cases=200)
    assert report.mistakes == ("w",)
    assert report.explanation == (
        "dL/dw: no known pattern; every step alone is within rounding, all together are not"
    )


class LogOfExp(torch.autograd.Function):
    """x softplus(x) by a form that overflows in float32 long before it does in float64."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.log1p(torch.exp(x))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return upstream[0] * (torch.log1p(torch.exp(x)) + x * torch.sigmoid(x))


def test_what_overflows_in_the_dtype_alone_enters_where_it_is_first_seen() -> None:
    """Double backward is wrong in float64, too; that is not where a user has to look."""
    twin = Twin.from_function(
        LogOfExp.apply,
        lambda x: x * torch.logaddexp(x, torch.zeros_like(x)),
        lambda draw: {"x": draw.normal(std=3.0, shape=(draw.size(1, 9), 4))},
    )
    report = verify(twin, dtype=torch.float32, cases=10)
    assert report.mistakes[0] == report.first_wrong == "upstream"


def test_a_hand_that_gives_a_repeated_gradient_is_diagnosed() -> None:
    """Heads put side by side by a view, whose upstream gradient repeats one number."""

    def merged(values: Values) -> Values:
        y = (values["x"] * 2).transpose(1, 2).reshape(2, 3, -1)
        return {"y": y, "loss": (y * values["upstream"]).sum()}

    def manual(values: Values) -> Values:
        upstream = values["upstream"]
        return {"y": upstream, "x": 3 * upstream.reshape(2, 3, 2, 2).transpose(1, 2)}

    def drawn(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(2, 2, 3, 2)), "upstream": draw.normal(shape=(2, 3, 4))}

    report = verify(Twin("heads", drawn, merged, manual))
    assert report.mistakes == ("x",)
    assert report.explanation == "dL/dx is 1.5 times the truth"


def test_what_has_no_gradient_meets_no_kink() -> None:
    """A count that is held above 1, and a mask of two."""

    def masked(values: Values) -> Values:
        kept = torch.maximum(values["m"], values["n"]).to(values["x"].dtype)
        return {"loss": ((values["x"] * kept).sum() / kept.sum().clamp(min=1)) ** 2}

    def manual(values: Values) -> Values:
        kept = (values["m"] | values["n"]).to(values["x"].dtype)
        count = kept.sum().clamp(min=1)
        return {"x": 2 * (values["x"] * kept).sum() / count / count * kept}

    def drawn(draw: Draw) -> Values:
        masks = {name: draw.booleans(0.4, shape=(3,)) for name in "mn"}
        return {"x": draw.normal(shape=(3,)), **masks}

    report = verify(Twin("masked", drawn, masked, manual))
    report.assert_agreement()
    assert report.kinks == 0
