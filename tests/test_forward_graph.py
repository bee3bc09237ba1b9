"""Which quantity is computed from which, for references written in every way."""

import torch
from torch import Tensor, nn

from torch_ref import Twin, verify
from torch_ref.assignment import assignment_twin
from torch_ref.compare.cases import Cases, widened
from torch_ref.compare.forward_graph import forward_graph
from torch_ref.compare.report import Graph
from torch_ref.compare.twin import Values

ASSIGNMENT = {
    "z3": "x1 x2 w13 w23 b3",
    "x3": "z3",
    "z4": "w34 x3 b4",
    "x4": "z4",
    "z5": "w35 x3 b5",
    "x5": "z5",
    "z6": "w36 x3 w46 x4 w56 x5 b6",
    "x6": "z6",
    "loss": "x6 t",
}
X = {"x": torch.tensor([1.0, 2.0], dtype=torch.float64)}


def sources(graph: Graph) -> dict[str, set[str]]:
    return {b: {a for a, other in graph.edges if other == b} for _, b in graph.edges}


def test_the_assignment() -> None:
    twin = assignment_twin()
    graph = verify(twin, cases=20).graph
    assert sources(graph) == {name: set(used.split()) for name, used in ASSIGNMENT.items()}
    place = {name: at for at, name in enumerate(graph.quantities)}
    assert all(place[a] < place[b] for a, b in graph.edges)
    assert verify(twin, cases=20, explain=False).graph == Graph()


def test_what_is_written_in_place() -> None:
    def reference(values: Values) -> Values:
        y = torch.zeros(2, dtype=torch.float64)
        y[0] = values["x"][1]
        y.mul_(2)
        return {"y": y, "loss": y.sum()}

    assert sources(forward_graph(reference, X)) == {"y": {"x"}, "loss": {"y"}}


def test_several_names_of_one_tensor_follow_each_other() -> None:
    def reference(values: Values) -> Values:
        y = values["x"] * 2
        return {"inner": y, "output": y, "x": values["x"], "loss": y.sum()}

    expected = {"inner": {"x"}, "output": {"inner"}, "loss": {"output"}}
    assert sources(forward_graph(reference, X)) == expected


def test_a_reference_that_differentiates_something_itself() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return 2 * x * gradient

    twin = Twin.from_function(
        Square.apply, lambda x: x * x, lambda draw: {"x": draw.normal(shape=(3,))}
    )
    case = Cases(twin, torch.float64, torch.device("cpu"), 0).case(0)
    graph = forward_graph(twin.reference, widened(case.inputs))
    assert sources(graph)["loss"] >= {"x", "x (twice)", "direction of x"}


def test_a_module_names_its_parts() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    twin = Twin.from_module(
        module,
        lambda output, values: output.sum(),
        lambda values: {},
        lambda draw: {"input": draw.normal(shape=(4, 3))},
    )
    case = Cases(twin, torch.float64, torch.device("cpu"), 0).case(0)
    found = sources(forward_graph(twin.reference, widened(case.inputs)))
    assert found["0"] == {"input", "0.weight", "0.bias"}
    assert found["1"] == {"0"}
    assert found["loss"] == {"output"}


def test_one_that_cannot_be_recorded_has_none() -> None:
    def reference(values: Values) -> Values:
        factor = 1 + float(values["x"].sum())
        return {"loss": (values["x"] * factor).sum()}

    assert forward_graph(reference, X) == Graph()
