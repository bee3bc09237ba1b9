"""A recorded graph does what the function does, on other numbers too, or recording says why not."""

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_builders import Cube
from torch import Tensor

from torch_ref.compare.graphs.recording import LooksAtNumbersError, recorded
from torch_ref.compare.graphs.side import record

WEIGHT = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)


def numbers(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, dtype=torch.float64, generator=generator)


def in_place(x: Tensor) -> Tensor:
    y = x.clone()
    row = y[0]
    row.mul_(2)
    y += 1
    y[1:, 0] = row[0]
    return y


def into_another(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    torch.mul(x, 2, out=out)
    return out


def a_changed_constant(x: Tensor) -> Tensor:
    factors = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    factors.add_(1)
    return x * factors


def a_constant_s_number(x: Tensor) -> Tensor:
    return x * WEIGHT.abs().max().item() + torch.tensor(2.0).item()


def a_custom_gradient(x: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(Cube.apply(leaf).sum(), leaf)
    return found


def half_of_it_narrow(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return (x.float() @ WEIGHT.float().T) @ WEIGHT.float()


def without_gradients(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.nn.functional.linear(x, WEIGHT)


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "in place": in_place,
    "into another": into_another,
    "a changed constant": a_changed_constant,
    "a constant's number": a_constant_s_number,
    "a custom gradient": a_custom_gradient,
    "autocast": half_of_it_narrow,
    "inference mode": without_gradients,
    "two results": lambda x: tuple(torch.topk(x, 2)),
    "a list": lambda x: tuple(torch._foreach_add([x, x], 1.0)),
    "vmap": torch.func.vmap(lambda row: row.sin().sum() * row),
    "jacobian": torch.func.jacrev(lambda x: (x * x.sin()).sum(0)),
    "second derivative": torch.func.grad(
        lambda x: torch.func.grad(lambda y: (y**3).sum())(x).sin().sum()
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_graph_does_what_was_recorded_on_other_numbers(name: str) -> None:
    function = FUNCTIONS[name]
    graph, other = recorded(function, numbers(0)), numbers(1)
    found, expected = graph(other), function(other)
    several = found if isinstance(found, tuple) else (found,)
    for one, right in zip(several, expected if isinstance(expected, tuple) else (expected,)):
        assert torch.equal(one, right)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_walked_changes_nothing_in_place(name: str) -> None:
    def values(given: dict[str, Tensor]) -> dict[str, Tensor]:
        found = FUNCTIONS[name](given["x"])
        found = found if isinstance(found, tuple) else (found,)
        return {f"y{place}": one for place, one in enumerate(found)}

    graph, other = record(values, {"x": numbers(0)}), numbers(1)
    targets = [node.target for node in graph.graph.nodes if hasattr(node.target, "_schema")]
    assert not any(target._schema.is_mutable for target in targets)
    assert (graph.inputs, graph.outputs) == (("x",), tuple(values({"x": other})))
    for one, right in zip(graph(other), values({"x": other}).values()):
        torch.testing.assert_close(one, right, rtol=1e-12, atol=1e-12)


STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y,
    "multiply": lambda x, y: x * y,
    "tanh in place": lambda x, y: (x * 1).tanh_(),
    "transpose": lambda x, y: x.T.contiguous().T,
    "roll": lambda x, y: torch.cat((x[1:], y[:1])),
    "softmax": lambda x, y: x.softmax(1),
    "write a row": lambda x, y: x.clone().index_put_((torch.tensor([2]),), y[:1]),
    "halves": lambda x, y: torch.stack((x[:2], y[2:])).reshape(4, 3),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 5)), max_size=12))
def test_any_chain_of_operations_is_recorded(chain: list[tuple[str, int]]) -> None:
    def run(x: Tensor) -> Tensor:
        made = [x]
        for name, before in chain:
            made.append(STEPS[name](made[-1], made[before % len(made)]))
        return made[-1]

    assert torch.equal(recorded(run, numbers(0))(numbers(1)), run(numbers(1)))


@pytest.mark.parametrize(
    "looks",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * x.sum().item(),
        lambda x: x * torch.rand(3).sum().item(),
        lambda x: x if torch.equal(x, x + 1) else -x,
        lambda x: x * math.sqrt(x[0, 0]),
    ],
)
def test_a_function_that_looks_at_its_numbers_is_refused(looks: Callable[[Tensor], Any]) -> None:
    with pytest.raises(LooksAtNumbersError, match="looks at numbers"):
        recorded(looks, numbers().abs())


def test_a_choice_of_functions_is_refused_by_its_name() -> None:
    import torch._dynamo  # else importing it is recorded, too

    def chosen(x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))

    with pytest.raises(TypeError, match="cond takes functions, which cannot be recorded"):
        recorded(chosen, numbers())


def test_what_torch_compile_was_given_is_recorded_as_it_is_written() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own imports
        compiled = torch.compile(lambda x: (x * 2).sin(), backend="eager")
    graph = recorded(lambda x: compiled(x) + 1, numbers(0))
    assert torch.equal(graph(numbers(1)), (numbers(1) * 2).sin() + 1)


def test_a_graph_runs_in_memory_that_it_gives_back() -> None:
    """Values that are done with are dropped: else a long chain would keep them all."""
    graph = recorded(lambda x: x.sin().cos().exp().tanh(), numbers())
    done = [node for nodes in graph.last_uses.values() for node in nodes]
    assert len(done) == len(set(done)) == len(graph.graph.nodes) - 1


def test_judging_imports_no_compiler_of_torch_s() -> None:
    """torch._dynamo and sympy take more than a second of the start."""
    program = (
        "import sys, torch; from torch_ref import assignment_twin, verify;"
        "report = verify(assignment_twin(), cases=1000, dtype=torch.float32);"
        "print(report.verdict, sorted({'torch._dynamo', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "agree []", done.stderr
