"""AssignmentNet and ItakuraSaitoLoss as torch users know modules, with torch's own tools."""

import copy
import re
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.decomposition import NMF
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import manual_bp
from torch_ref import AssignmentNet, ItakuraSaitoLoss

NODES = ["z3", "x3", "z4", "x4", "z5", "x5", "z6", "x6"]


def data(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """x of shape (*shape, 2) and t > 0 of shape (*shape)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, 2, generator=generator, dtype=dtype)
    return x, torch.randn(*shape, generator=generator, dtype=dtype).exp()


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
    assert repr(network()) == "AssignmentNet(2 -> x3 -> (x4, x5) -> x6, dtype=torch.float64, device=cpu)"
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
    """The Itakura-Saito divergence of t from x, by scikit-learn's public NMF.

    With one component whose weights are kept (`transform` off), the reconstruction of the single
    column t is what NMF started from: a fit that may take no step reports its divergence from t.
    """
    model = NMF(1, init="custom", solver="mu", beta_loss="itakura-saito", max_iter=1, tol=1e9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit_transform(t[:, None], W=x[:, None].copy(), H=np.ones((1, 1)))
    return model.reconstruction_err_**2 / 2
