"""JAX's ways to the gradients. JAX is optional; it is imported when the first peer is built."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch_ref.benchmark.batch import Batch
from torch_ref.benchmark.formulas import INTERMEDIATE, losses

if TYPE_CHECKING:
    import jax

Step = Callable[[], dict[str, Any]]


def no_jax(batch: Batch) -> str:
    """Why JAX cannot be timed; "" where it can."""
    if batch.device != "cpu":
        return "it is timed on the CPU only"
    if find_spec("jax") is None:
        return "jax is not installed: pip install jax"
    return ""


def _mean_loss(p: Any, inputs: Any) -> Any:
    return _losses(p, None, *inputs).mean()


def _losses(p: Any, added: Any, x1: Any, x2: Any, t: Any) -> Any:
    import jax
    import jax.numpy as jnp

    class Library:
        sigmoid, log = staticmethod(jax.nn.sigmoid), staticmethod(jnp.log)

    return losses(p, x1, x2, t, Library, added)


def forward(batch: Batch) -> Step:
    import jax

    return _step(batch, jax.jit(_mean_loss), lambda loss: {"loss": loss})


def grad(batch: Batch) -> Step:
    import jax

    return _step(batch, jax.jit(jax.grad(_mean_loss)), dict)


def value_and_grad(batch: Batch) -> Step:
    import jax

    def named(found: Any) -> dict[str, Any]:
        return {"loss": found[0], **found[1]}

    return _step(batch, jax.jit(jax.value_and_grad(_mean_loss)), named)


def per_sample(batch: Batch) -> Step:
    """vmap(grad) for parameters, inputs, and zeros that are added to every value in between."""
    import jax

    gradient = jax.grad(_losses, argnums=(0, 1, 2, 3))
    mapped = jax.jit(jax.vmap(gradient, in_axes=(None, None, 0, 0, 0)))

    def function(p: Any, inputs: Any) -> Any:
        return mapped(p, zeros, *inputs)

    def named(found: Any) -> dict[str, Any]:
        return {**found[0], **found[1], "x1": found[2], "x2": found[3]}

    zeros = dict.fromkeys(INTERMEDIATE, _as_jax(batch.parameters["b3"] * 0))
    return _step(batch, function, named)


def _step(batch: Batch, function: Any, named: Callable[[Any], dict[str, Any]]) -> Step:
    from jax import block_until_ready

    wait: Callable[[Any], Any] = block_until_ready
    parameters = {name: _as_jax(value) for name, value in batch.parameters.items()}
    inputs = [_as_jax(value) for value in batch.inputs.values()]
    # JAX returns before it has computed; waiting is part of the call.
    return lambda: named(wait(function(parameters, inputs)))


def _as_jax(tensor: Any) -> "jax.Array":
    import jax
    import jax.numpy as jnp

    settings: Any = jax.config
    settings.update("jax_enable_x64", True)  # without it float64 silently becomes float32
    # a copy: JAX would read the memory of a tensor that is gone
    return jnp.array(tensor.numpy(), copy=True)
