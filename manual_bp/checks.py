"""What the network refuses, one clear sentence each: names, then dtypes and shapes, then values."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

Array = Any


def check_names(
    what: str, given: Mapping[str, Any], expected: Iterable[str], optional: Collection[str] = ()
) -> None:
    """Raise ValueError unless `given` has the `expected` names and no others, of which those in
    `optional` may be missing, and TypeError where it is no dict."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} must be a dict of arrays by name; got {type(given).__name__}.")
    expected = tuple(expected)
    missing = [name for name in expected if name not in given and name not in optional]
    unknown = [str(name) for name in given if name not in expected]
    if missing or unknown:
        found = [f"missing {', '.join(missing)}"] * bool(missing)
        found += [f"unknown {', '.join(map(_with_guess(missing), unknown))}"] * bool(unknown)
        raise ValueError(
            f"{what} must have exactly the names {', '.join(expected)}; {' and '.join(found)}."
        )


def _with_guess(missing: list[str]) -> Callable[[str], str]:
    """An unknown name, with the missing one that it may be a misspelling of."""

    def guess(name: str) -> str:
        for one in missing:
            if sorted(one.lower()) == sorted(name.lower()) or get_close_matches(name, [one]):
                return f"{name} (did you mean {one}?)"
        return name

    return guess


def common_arrays(given: Mapping[str, Any]) -> dict[str, Array]:
    """The same values as arrays of one library, dtype and device; Python floats are taken along.

    Raises TypeError for several libraries, integers or several dtypes, and ValueError for several
    devices or for shapes that do not broadcast.
    """
    arrays = {name: value for name, value in given.items() if not _is_python_float(value)}
    xp = _one_library(arrays)
    first = next(iter(arrays))
    for name, value in arrays.items():
        if not xp.isdtype(value.dtype, "real floating"):
            raise TypeError(
                f"{name} has dtype {value.dtype}; real floating numbers are needed: convert it, "
                "for example to float64."
            )
        if value.dtype != arrays[first].dtype:
            raise TypeError(
                f"All arrays must have one dtype; {first} is {arrays[first].dtype} and {name} is "
                f"{value.dtype}: convert one of them."
            )
        if device(value) != device(arrays[first]):
            raise ValueError(
                f"All arrays must be on one device; {first} is on {device(arrays[first])} and "
                f"{name} is on {device(value)}: move one of them."
            )
    _check_broadcast(arrays)
    like = arrays[first]
    return {
        name: xp.asarray(value, dtype=like.dtype, device=device(like))
        if _is_python_float(value)
        else value
        for name, value in given.items()
    }


def check_gradient(name: str, gradient: Any, parameter: Any) -> None:
    """Raise ValueError for another shape than the parameter's, TypeError for another dtype."""
    shapes = [tuple(getattr(value, "shape", ())) for value in (gradient, parameter)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"The gradient of {name} has shape {shapes[0]}, the parameter {shapes[1]}: use "
            "manual_bp.gradients, which gives each the shape of its parameter."
        )
    dtypes = [getattr(value, "dtype", None) for value in (gradient, parameter)]
    if all(dtype is not None for dtype in dtypes) and dtypes[0] != dtypes[1]:
        raise TypeError(
            f"The gradient of {name} is {dtypes[0]}, the parameter {dtypes[1]}: convert one of "
            "them."
        )


def check_forward_values(given: Mapping[str, Array], values: Mapping[str, Array]) -> None:
    """Raise ValueError for t <= 0, a number that is not finite, and a loss that overflows.

    Whatever is wrong reaches z3, z4, z5 or the loss, so only these are looked at while all is well;
    where there is no loss, what it needs: t > 0 and x6 > 0.
    """
    well = _all_finite(values[name] for name in ("z3", "z4", "z5", "loss") if name in values)
    if well and ("loss" in values or _has_loss(values["x6"], values["t"])):
        return
    problem = "is not finite: every number given must be; mend it or leave it out"
    for name, value in given.items():
        _raise_where(name, value, ~_isfinite(value), problem)
    problem = "is not positive, and the loss has ln(t/x6): leave it out"
    _raise_where("t", given["t"], given["t"] <= 0, problem)
    for name, value in values.items():
        wrong = ~_isfinite(value) | (value == 0 if name == "x6" else False)
        hint = "; keep z6 away from 0" if name in ("x6", "loss") else ""
        _raise_where(
            name, value, wrong, f"is out of range for {value.dtype}{hint}, or use a wider dtype"
        )


def _has_loss(x6: Array, t: Array) -> bool:
    """Whether t/x6 - ln(t/x6) - 1 is a number everywhere, which may be out of range."""
    xp = array_namespace(x6, t)
    return _all_finite((x6, t)) and bool(xp.all(t > 0)) and bool(xp.all(x6 > 0))


def check_backward_values(gradients: Mapping[str, Array]) -> None:
    """Raise ValueError for a gradient that overflows its dtype, naming the first."""
    if _all_finite(gradients.values()):
        return
    for name, value in gradients.items():
        hint = f"is out of range for {value.dtype}; keep z6 away from 0, or use a wider dtype"
        _raise_where(f"dL/d{name}", value, ~_isfinite(value), hint)


def numpy_warnings_off(check_values: bool) -> contextlib.AbstractContextManager[Any]:
    """NumPy's warnings for overflow and the like are off where we raise a full sentence instead."""
    return np.errstate(all="ignore") if check_values else contextlib.nullcontext()


def _is_python_float(value: Any) -> bool:
    """A float without a dtype: numpy.float64 is one of Python's too, but has float64."""
    return isinstance(value, float) and not isinstance(value, np.generic)


def _one_library(arrays: Mapping[str, Any]) -> Any:
    if not arrays:
        raise TypeError(
            "At least one value must be an array; got only Python floats: use numpy.asarray."
        )
    for name, value in arrays.items():
        try:
            array_namespace(value)
        except TypeError:
            raise TypeError(
                f"{name} must be a floating array or a Python float; got {type(value).__name__}: "
                "convert it, for example with numpy.asarray(..., dtype=float)."
            ) from None
    try:
        return array_namespace(*arrays.values())
    except TypeError:
        kinds = sorted({type(value).__module__.split(".")[0] for value in arrays.values()})
        raise TypeError(
            f"All arrays must come from one library; got {' and '.join(kinds)}: convert one, "
            "for example with torch.as_tensor."
        ) from None


def _check_broadcast(arrays: Mapping[str, Array]) -> None:
    try:
        np.broadcast_shapes(*(tuple(value.shape) for value in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {tuple(v.shape)}" for name, v in arrays.items() if v.ndim)
        raise ValueError(
            f"The shapes do not broadcast together: {shapes}. Give each one number, or one a "
            "sample."
        ) from None


def _isfinite(value: Array) -> Array:
    return array_namespace(value).isfinite(value)


def _all_finite(values: Iterable[Array]) -> bool:
    return all(bool(array_namespace(value).all(_isfinite(value))) for value in values)


def _raise_where(name: str, value: Array, wrong: Array, problem: str) -> None:
    xp = array_namespace(value)
    if bool(xp.any(wrong)):
        case = tuple(int(index[0]) for index in xp.nonzero(wrong)) if value.ndim else ()
        where = f" in case {case[0] if len(case) == 1 else case}" if case else ""
        raise ValueError(f"{name} = {float(value[case])}{where} {problem}.")
