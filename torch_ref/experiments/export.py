"""The trained network as others run it: torch.export, torch.compile, ONNX under onnxruntime.

Each must give what the module gives, up to what rounding can do to either: twice the bound that
running error analysis of the forward pass gives for every output, so no tolerance is chosen.

onnxruntime has a sigmoid of its own: for z < 0 it is 1 - sigmoid(-z), which keeps no more than the
absolute error of a number near 1 (measured with 1.32: 3e3 unit roundoffs at z = -8, and 0 from
z = -37 on, where torch's stays below 2). So its outputs get the bound of that formula on top.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from torch_ref.compare.graphs.side import record
from torch_ref.compare.rounding import Arithmetic, walk

OPSET = 18
ONNX = "ONNX, onnxruntime"


@dataclass(frozen=True)
class Copy:
    """One other form of a network: its largest relative difference, and the share of the bound."""

    name: str
    difference: float
    used: float

    @property
    def agrees(self) -> bool:
        return self.used <= 1  # never of NaN


def exported(net: nn.Module, x: Tensor) -> nn.Module:
    """By torch.export, for a batch of any size; x: shape (n, 2), n > 1."""
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    return program.module()


def onnx_bytes(net: nn.Module, x: Tensor) -> bytes:
    """The network as an ONNX file: input `x`, float64 (batch, 2), output `variance`, (batch,)."""
    with _quiet():
        program = torch.onnx.export(
            net,
            (x,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["variance"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
        assert program is not None  # it is None for the old exporter only
        content: bytes = program.model_proto.SerializeToString()
    return content


def run_onnx(content: bytes, x: Tensor) -> Tensor:
    """What onnxruntime computes on the CPU; shape (n,)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (variance,) = session.run(["variance"], {"x": x.numpy()})
    return torch.as_tensor(variance)


def copies(net: nn.Module, x: Tensor, onnx: bytes | None = None) -> list[Copy]:
    """Each form of the network against the module on x of shape (n, 2), ONNX where it is given."""
    with torch.no_grad():
        found = {
            "torch.export": exported(net, x)(x),
            "torch.compile": torch.compile(net)(x),
        }
        if onnx is not None:
            found[ONNX] = run_onnx(onnx, x)
        return compared(net, x, found)


def compared(net: nn.Module, x: Tensor, found: dict[str, Tensor]) -> list[Copy]:
    """Outputs of shape (n,), by name, against the module's."""
    with torch.no_grad():
        right, bound = net(x), 2 * _rounding(net, x)
        further = {ONNX: _rounding(_reflected(net, x), x)} if ONNX in found else {}
    return [
        Copy(
            name,
            ((output - right).abs() / right.abs()).max().item(),
            ((output - right).abs() / (bound + further.get(name, 0))).max().item(),
        )
        for name, output in found.items()
    ]


def _rounding(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The bound on every output, shape (n,)."""
    graph = record(lambda values: {"output": net(values["x"])}, {"x": x})
    return walk(graph, {"x": x}, Arithmetic.of(x.dtype)).bounds["output"]


def _reflected(net: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The network with 1 - sigmoid(-z) for sigmoid(z): onnxruntime's arithmetic where z < 0."""
    table = {torch.ops.aten.sigmoid.default: lambda z: 1 - 1 / (1 + torch.exp(z))}
    graph: Callable[[Tensor], Tensor] = make_fx(net, decomposition_table=table)(x)
    return graph


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks of its own parts, on every channel; what fails still raises."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
