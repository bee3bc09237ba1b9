"""AssignmentNet and ItakuraSaitoLoss as torch users know modules, with torch's own tools."""

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition._nmf import _beta_divergence  # no public name gives it
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

import manual_bp
from torch_ref import AssignmentNet, ItakuraSaitoLoss

NODES = ["z3", "x3", "z4", "x4", "z5", "x5", "z6", "x6"]


def data(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """x of shape (*shape, 2) and t > 0 of shape (*shape)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((*shape, 2), generator=generator, dtype=dtype)
    return x, torch.randn(shape, generator=generator, dtype=dtype).exp()


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> AssignmentNet:
    torch.manual_seed(seed)
    return AssignmentNet(dtype=dtype)


def close(left: Tensor, right: Tensor) -> None:
    """Equal up to a few roundings of float64."""
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-14)


# a parameter dict both ways ----------------------------------------------------------------------


def test_state_dict_is_a_parameter_dict(device: str) -> None:
    net = network().to(device)
    x, t = (value.to(device) for value in data(50))
    inputs = {"x1": x[:, 0], "x2": x[:, 1], "t": t}
    values = manual_bp.forward(net.state_dict(), inputs)
    close(values["x6"], net(x).detach())
    close(values["loss"], ItakuraSaitoLoss("none")(net(x), t).detach())
    assert tuple(net.state_dict()) == manual_bp.PARAMETERS


def test_parameter_dict_is_a_state_dict() -> None:
    parameters = manual_bp.init_parameters(seed=7)
    net = network()
    net.load_state_dict({name: torch.as_tensor(value) for name, value in parameters.items()})
    assert {name: value.item() for name, value in net.state_dict().items()} == parameters
    x, t = data(50)
    inputs = {"x1": x[:, 0].numpy(), "x2": x[:, 1].numpy(), "t": t.numpy()}
    close(net(x).detach(), torch.as_tensor(manual_bp.forward(parameters, inputs)["x6"]))


def test_autograd_gives_the_gradients_by_hand() -> None:
    net = network()
    x, t = data(50)
    ItakuraSaitoLoss()(net(x), t).backward()
    inputs = {"x1": x[:, 0], "x2": x[:, 1], "t": t}
    loss, gradients = manual_bp.gradients(net.state_dict(), inputs)
    for name, parameter in net.named_parameters():
        close(parameter.grad, gradients[name])
    close(loss, ItakuraSaitoLoss()(net(x), t).detach())


# the module --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (0,), (7,), (3, 4), (2, 3, 4)])
def test_shapes(shape: tuple[int, ...]) -> None:
    x, _ = data(*shape)
    net = network()
    assert net(x).shape == shape
    assert all(value.shape == shape for value in net.intermediates(x).values())


def test_intermediates_by_name() -> None:
    net = network()
    x, t = data(5)
    values = net.intermediates(x)
    assert list(values) == NODES
    assert torch.equal(values["x6"], net(x))
    inputs = {"x1": x[:, 0], "x2": x[:, 1], "t": t}
    wanted = manual_bp.forward(net.state_dict(), inputs)
    for name, value in values.items():
        close(value.detach(), wanted[name])
        assert value.requires_grad, name


@pytest.mark.parametrize("shape", [(), (3,), (4, 1), (2, 2, 3)])
def test_wrong_last_dimension(shape: tuple[int, ...]) -> None:
    message = f"x must have shape (..., 2): x1 and x2 last; got {shape}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        network()(torch.ones(shape, dtype=torch.float64))


def test_reset_parameters() -> None:
    net = network(seed=1)
    before = copy.deepcopy(net.state_dict())
    identities = [id(parameter) for parameter in net.parameters()]
    net.reset_parameters()
    assert all(not torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [id(parameter) for parameter in net.parameters()] == identities
    torch.manual_seed(1)
    net.reset_parameters()
    assert net.state_dict() == before


def test_z6_starts_positive_and_away_from_0() -> None:
    x, _ = data(100)
    for seed in range(50):
        assert network(seed).intermediates(x)["z6"].min() > 0.5


def test_parameters_are_spread_as_documented() -> None:
    drawn = [network(seed).state_dict() for seed in range(400)]
    column = {name: torch.stack([one[name] for one in drawn]) for name in manual_bp.PARAMETERS}
    limits = {"w36": (0.1, 1.0), "w46": (0.1, 1.0), "w56": (0.1, 1.0), "b6": (0.5, 1.0)}
    for name, values in column.items():
        low, high = limits.get(name, (-np.inf, np.inf))
        assert low <= values.min() < values.max() <= high, name
        mean, std = (0, 1) if name not in limits else ((low + high) / 2, (high - low) / 12**0.5)
        assert abs(values.mean() - mean) < 5 * std / 20, name  # 5 standard errors
        assert abs(values.std() / std - 1) < 0.2, name


def test_repr_says_what_it_is() -> None:
    assert (
        repr(network())
        == "AssignmentNet(2 -> x3 -> (x4, x5) -> x6, dtype=torch.float64, device=cpu)"
    )
    assert repr(ItakuraSaitoLoss("sum")) == "ItakuraSaitoLoss(reduction='sum')"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_and_device(dtype: torch.dtype, device: str) -> None:
    net = AssignmentNet(dtype=dtype, device=device)
    assert {(p.dtype, p.device.type) for p in net.parameters()} == {(dtype, device)}
    x, t = (value.to(device) for value in data(8, dtype=dtype))
    output = net(x)
    assert (output.dtype, output.device.type) == (dtype, device)
    loss = ItakuraSaitoLoss()(output, t)
    assert (loss.dtype, loss.device.type) == (dtype, device)
    assert loss.isfinite()


def test_default_dtype() -> None:
    assert {parameter.dtype for parameter in AssignmentNet().parameters()} == {torch.float32}


def test_meta_device() -> None:
    """As for torch's own modules: built without numbers, then given memory and drawn."""
    net = AssignmentNet(device="meta", dtype=torch.float64)
    assert all(parameter.is_meta for parameter in net.parameters())
    assert net(torch.empty(5, 2, device="meta", dtype=torch.float64)).shape == (5,)
    net = net.to_empty(device="cpu")
    torch.manual_seed(0)
    net.reset_parameters()
    assert net.state_dict() == network(0).state_dict()


def test_to_another_dtype() -> None:
    assert {parameter.dtype for parameter in network().float().parameters()} == {torch.float32}


# the loss ----------------------------------------------------------------------------------------


def scikit_learn_divergence(x: np.ndarray, t: np.ndarray) -> float:
    """The sum of the Itakura-Saito divergences of t from x, by scikit-learn.

    It is the loss of a factorisation of t; x as weights times a single 1 is the approximation.
    It lifts an x below 10^-7 to that.
    """
    return _beta_divergence(t[:, None], x[:, None].copy(), np.ones((1, 1)), "itakura-saito")


@pytest.mark.parametrize("spread", [0.01, 0.1, 1.0, 3.0])
def test_loss_is_the_divergence_of_scikit_learn(spread: float, device: str) -> None:
    generator = np.random.default_rng(0)
    x, t = np.exp(generator.normal(0, spread, (2, 1000)))
    given = [torch.as_tensor(value, device=device) for value in (x, t)]
    total = scikit_learn_divergence(x, t)
    assert ItakuraSaitoLoss("sum")(*given).item() == pytest.approx(total, rel=1e-12)
    assert ItakuraSaitoLoss("mean")(*given).item() == pytest.approx(total / 1000, rel=1e-12)
    each = ItakuraSaitoLoss("none")(*given)
    assert each.shape == (1000,)
    for i in range(0, 1000, 100):
        one = scikit_learn_divergence(x[i : i + 1], t[i : i + 1])
        assert each[i].item() == pytest.approx(one, rel=1e-12, abs=1e-14)


def test_mean_is_the_default() -> None:
    x, t = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 2.0])
    assert ItakuraSaitoLoss()(x, t) == ItakuraSaitoLoss("mean")(x, t)


def test_loss_is_0_where_output_is_target() -> None:
    x = torch.logspace(-30, 30, 100, dtype=torch.float64)
    assert ItakuraSaitoLoss("none")(x, x).eq(0).all()


OUTSIDE = {
    # t, x: what the loss is there
    (-2.0, 1.0): "nan",
    (2.0, -1.0): "nan",
    (-2.0, -1.0): 2 - np.log(2) - 1,  # t/x is that of 2 and 1
    (0.0, 1.0): "inf",
    (2.0, 0.0): "nan",
    (0.0, 0.0): "nan",
}


@pytest.mark.parametrize(("t", "x"), OUTSIDE)
def test_loss_outside_its_domain_is_as_documented(t: float, x: float, device: str) -> None:
    """Nothing is raised, as by torch's own losses: a look at the values would make the GPU wait."""
    dtype = {"dtype": torch.float64, "device": device}
    given = torch.tensor([1.0, x], **dtype), torch.tensor([1.0, t], **dtype)
    wanted = pytest.approx(float(OUTSIDE[t, x]), rel=1e-12, nan_ok=True)
    each = ItakuraSaitoLoss("none")(*given)
    assert each[0] == 0
    assert each[1].item() == wanted
    assert ItakuraSaitoLoss("sum")(*given).item() == wanted


def test_loss_of_an_empty_batch_is_that_of_torchs_own_losses(device: str) -> None:
    empty = torch.empty(0, dtype=torch.float64, device=device)
    for reduction, shape in (("none", (0,)), ("sum", ()), ("mean", ())):
        loss = ItakuraSaitoLoss(reduction)(empty, empty)
        assert loss.shape == shape
        assert torch.equal(
            loss.nan_to_num(-1.0), nn.MSELoss(reduction=reduction)(empty, empty).nan_to_num(-1.0)
        )
    assert ItakuraSaitoLoss()(empty, empty).isnan()


@pytest.mark.parametrize("reduction", ["median", "", None])
def test_bad_reduction(reduction: object) -> None:
    message = f'reduction must be "mean", "sum" or "none"; got {reduction!r}.'
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ItakuraSaitoLoss(reduction)


# torch's own tools -------------------------------------------------------------------------------


class Both(nn.Module):
    """The network and its loss as one module, as a training loop has them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.loss = ItakuraSaitoLoss()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.loss(self.net(x), t)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile(backend: str, device: str) -> None:
    if backend == "inductor" and device == "cpu" and not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler: none found")
    torch.compiler.reset()
    both = Both().to(device)
    x, t = (value.to(device) for value in data(64))
    compiled = torch.compile(both, fullgraph=True, backend=backend)
    wanted, got = both(x, t), compiled(x, t)
    close(got, wanted)
    parameters = list(both.parameters())
    for one, other in zip(
        torch.autograd.grad(got, parameters), torch.autograd.grad(wanted, parameters), strict=True
    ):
        close(one, other)


def test_functional_call_with_vmap_and_grad(device: str) -> None:
    """Each sample's gradient by torch.func is each sample's gradient by hand."""
    net = network().to(device)
    x, t = (value.to(device) for value in data(50))
    state = net.state_dict()

    def loss(parameters: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
        return ItakuraSaitoLoss()(functional_call(net, parameters, (x,)), t)

    each = vmap(grad(loss), in_dims=(None, 0, 0))(state, x, t)
    values = manual_bp.forward(state, {"x1": x[:, 0], "x2": x[:, 1], "t": t})
    by_hand = manual_bp.backward(state, values)
    for name in manual_bp.PARAMETERS:
        close(each[name], by_hand[name])


def test_ensemble_by_vmap(device: str) -> None:
    nets = [network(seed).to(device) for seed in range(3)]
    x, _ = (value.to(device) for value in data(50))
    parameters, buffers = stack_module_state(nets)
    outputs = vmap(lambda p, b: functional_call(nets[0], (p, b), (x,)))(parameters, buffers)
    close(outputs, torch.stack([net(x) for net in nets]))


def test_export() -> None:
    """One program for every batch size, and the module that comes out trains."""
    both = Both()
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(both, data(8), dynamic_shapes=({0: batch}, {0: batch}))
    x, t = data(31, seed=1)
    exported = program.module()
    close(exported(x, t), both(x, t))
    exported(x, t).backward()
    both(x, t).backward()
    assert {name.removeprefix("net.") for name in exported.state_dict()} == set(
        manual_bp.PARAMETERS
    )
    for name, parameter in both.named_parameters():
        close(exported.get_parameter(name).grad, parameter.grad)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.2),
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.LBFGS(p, line_search_fn="strong_wolfe"),
    ],
    ids=["SGD", "Adam", "LBFGS"],
)
def test_optimizers(make: Callable[..., torch.optim.Optimizer], device: str) -> None:
    """Each learns what another network of the same kind gives."""
    x, _ = (value.to(device) for value in data(200))
    t = network(seed=1).to(device)(x).detach()
    both = Both().to(device)
    optimizer = make(both.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = both(x, t)
        loss.backward()
        return loss

    first = closure().item()
    for _ in range(200):
        optimizer.step(closure)
    assert closure().item() < first / 2


def test_one_step_of_sgd_is_the_step_by_hand() -> None:
    both, (x, t) = Both(), data(50)
    before = {name: value.clone() for name, value in both.net.state_dict().items()}
    slopes = manual_bp.gradients(before, {"x1": x[:, 0], "x2": x[:, 1], "t": t})[1]
    both(x, t).backward()
    torch.optim.SGD(both.parameters(), lr=0.1).step()
    for name, value in manual_bp.sgd_step(before, slopes, 0.1).items():
        close(both.net.state_dict()[name], value)


def test_deepcopy() -> None:
    both, (x, t) = Both(), data(50)
    other = copy.deepcopy(both)
    assert torch.equal(other(x, t), both(x, t))
    with torch.no_grad():
        other.net.b6.add_(1)
    assert not torch.equal(other(x, t), both(x, t))


def test_save_and_load_without_pickle(tmp_path: Path) -> None:
    net, (x, _) = network(seed=5), data(50)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    other = network(seed=6)
    other.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    assert torch.equal(other(x), net(x))
    assert list(ItakuraSaitoLoss().state_dict()) == []
