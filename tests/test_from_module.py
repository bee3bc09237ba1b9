"""Twins made from an nn.Module."""

from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from torch_ref import Draw, Twin, TwinError, verify

Values = dict[str, Tensor]
NET = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def net_inputs(draw: Draw) -> Values:
    rows = draw.size(1, 5)
    return {"input": draw.normal(shape=(rows, 3)), "t": draw.normal(shape=(rows, 1))}


def mean_square(output: Tensor, values: Values) -> Tensor:
    return ((output - values["t"]) ** 2).mean()


def net_backward(v: Values) -> Values:
    x = v["input"]
    a = torch.tanh(x @ v["0.weight"].T + v["0.bias"])
    y = a @ v["2.weight"].T + v["2.bias"]
    dy = 2 * (y - v["t"]) / y.numel()
    da = dy @ v["2.weight"]
    dz = da * (1 - a * a)
    return {
        "2": dy, "2.weight": dy.T @ a, "2.bias": dy.sum(0),
        "1": da, "0": dz, "0.weight": dz.T @ x, "0.bias": dz.sum(0),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_module_and_its_submodules(dtype: torch.dtype, device: str) -> None:
    twin = Twin.from_module(NET, mean_square, net_backward, net_inputs)
    report = verify(twin, cases=27, dtype=dtype, device=device)
    report.assert_agreement()
    assert report.twin == "Sequential"
    assert report.missing == ("input", "t")


def test_a_wrong_submodule_is_named_by_its_path() -> None:
    def wrong(values: Values) -> Values:
        found = net_backward(values)
        return {**found, "0": found["1"], "0.bias": found["1"].sum(0)}

    report = verify(Twin.from_module(NET, mean_square, wrong, net_inputs), cases=27)
    assert report.mistakes == ("0",)
    assert "dL/d0 lacks the factor" in report.explanation


def test_the_modules_own_parameters_are_what_is_drawn_around() -> None:
    net = nn.Linear(2, 1)
    with torch.no_grad():
        net.weight.fill_(100.0)
        net.bias.zero_()
    twin = Twin.from_module(net, lambda output, v: output.sum(), lambda v: {}, lambda d: {
        "input": d.normal(shape=(1, 2))})  # fmt: skip
    seen = []

    def manual(values: Values) -> Values:
        seen.append(values)
        return {"bias": torch.ones_like(values["bias"])}

    verify(replace(twin, manual=manual, stress=()), cases=20).assert_agreement()
    weights = torch.stack([values["weight"] for values in seen if len(seen) > 1])
    assert weights.mean() == pytest.approx(100, abs=60)
    assert weights.std() > 20
    assert net.weight.mean() == 100


def test_what_is_changed_in_place_keeps_its_name_and_number() -> None:
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3), nn.ReLU(inplace=True))

    def manual(v: Values) -> Values:
        z = v["input"].clamp(min=0) @ v["1.weight"].T + v["1.bias"]
        dz = v["u"] * (z > 0)
        return {"2": v["u"], "1": dz, "input": dz @ v["1.weight"] * (v["input"] > 0)}

    def inputs(draw: Draw) -> Values:
        return {"input": draw.normal(shape=(4, 3)), "u": draw.normal(shape=(4, 3))}

    twin = Twin.from_module(net, lambda output, v: (output * v["u"]).sum(), manual, inputs)
    verify(twin, cases=27).assert_agreement()


class Repeated(nn.Module):
    """tanh(tanh(x)) by one submodule, and one that returns its argument."""

    def __init__(self) -> None:
        super().__init__()
        self.tanh, self.same = nn.Tanh(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.tanh(self.tanh(x)) + self.same(x)


def test_each_call_of_a_submodule_has_a_name() -> None:
    def manual(v: Values) -> Values:
        first = torch.tanh(v["x"])
        second = torch.tanh(first)
        dfirst, one = 1 - second * second, torch.ones_like(first)
        dx = dfirst * (1 - first * first) + 1
        return {"same": one, "tanh (2)": one, "tanh": dfirst, "x": dx}

    twin = Twin.from_module(
        Repeated(), lambda output, v: output.sum(), manual, lambda d: {"x": d.normal(shape=(3,))}
    )
    verify(twin, cases=27).assert_agreement()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("training", [True, False])
def test_buffers_are_there_and_stay_as_they_are(training: bool, dtype: torch.dtype) -> None:
    net = nn.BatchNorm1d(3).train(training)
    torch.manual_seed(0)
    net(torch.randn(9, 3))  # statistics of its own
    before = {key: value.clone() for key, value in net.state_dict().items()}

    def manual(v: Values) -> Values:
        x, u = v["input"], v["u"]
        mean, variance = net.running_mean.to(x), net.running_var.to(x)
        if training:
            mean = x.mean(0)
            variance = ((x - mean) ** 2).mean(0)
        scale = torch.rsqrt(variance + net.eps)
        normal, dnormal = (x - mean) * scale, u * v["weight"]
        if training:
            dnormal = dnormal - dnormal.mean(0) - normal * (dnormal * normal).mean(0)
        return {"weight": (u * normal).sum(0), "bias": u.sum(0), "input": dnormal * scale}

    def inputs(draw: Draw) -> Values:
        shape = (draw.size(2, 7), 3)
        return {"input": draw.normal(shape=shape), "u": draw.normal(shape=shape)}

    twin = Twin.from_module(net, lambda output, v: (output * v["u"]).sum(), manual, inputs)
    report = verify(twin, cases=27, dtype=dtype)
    report.assert_agreement()
    assert report.notes == ()
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, weight: Tensor) -> Tensor:
        return self.weight * weight


def test_two_things_of_one_name_in_a_module_are_refused() -> None:
    def of_module(module: nn.Module, *names: str) -> Twin:
        return Twin.from_module(
            module, lambda output, v: output.sum(), lambda v: {},
            lambda draw: {name: draw.normal(shape=(3,)) for name in names},
        )  # fmt: skip

    names_both = "Scale: weight names both an argument of `forward` and a parameter or buffer: wrap"
    with pytest.raises(TwinError, match=names_both):
        of_module(Scale(), "weight")
    with pytest.raises(TwinError, match=r'Sequential: inputs gave "0", .* part of the module ret'):
        verify(of_module(nn.Sequential(nn.Tanh()), "input", "0"), cases=9)
    with pytest.raises(TwinError, match="Sequential: the module has a part named loss"):
        verify(of_module(nn.Sequential(OrderedDict(loss=nn.Tanh())), "input"), cases=9)
    with pytest.raises(TwinError, match="Tanh: inputs must return a dict of tensors"):
        verify(replace(of_module(nn.Tanh()), inputs=lambda draw: []), cases=9)
