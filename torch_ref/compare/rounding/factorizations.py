"""Linear systems, inverses, determinants and Cholesky factors of matrices.

What LAPACK computes is exact for a matrix A + E (Higham 2002, theorems 8.5, 9.4 and 10.3):

    |E| <= n u |T| for a triangular T, 3n u |L||U| for A = LU, (n + 1) u |L||L^T| for A = L L^T

to which the bound on A is added. How far that moves the answer, to first order:

    X = A^-1 B:  |A^-1| (E |X| + e_B)      A^-1:  |A^-1| E |A^-1|      det A:  |det A| sum(|A^-T| E)
    L:  |L| half(|L^-1| E |L^-T|), half being the lower triangle with half of its diagonal

divided by 1 - |A^-1| E's norm for the higher orders; where that is not below 1, nothing is known.
"""

import math
from typing import Any

import torch
from torch import Tensor

from torch_ref.compare.rounding.operation import Bound, Operation


def solution(operation: Operation) -> Bound:
    """Linear systems: what the matrix and the right-hand side are off by, times the inverse."""
    if operation.name == "linalg_lu_solve":
        factors, pivots = operation.args[:2]
        moved = operation.error(0) + _of_factors(operation, factors, pivots)
        inverse = torch.linalg.lu_solve(factors, pivots, _eye(factors))
        if operation.kwargs.get("adjoint"):
            inverse, moved = inverse.mT, moved.mT
        return _of_solution(operation, inverse, moved, operation.result, 2)
    result, factors, pivots, _ = operation.result
    moved = operation.error(0) + _of_factors(operation, factors, pivots)
    inverse = torch.linalg.inv_ex(operation.args[0]).inverse
    # That on the factors is how far their product is off: backward passes solve with them.
    return _of_solution(operation, inverse, moved, result, 1), moved, None, None


def triangular_solution(operation: Operation) -> Bound:
    """Triangular systems: the same, with fewer roundings."""
    matrix, error, upper = operation.args[0], operation.error(0), operation.kwargs["upper"]
    unit = int(operation.kwargs.get("unitriangular", False))  # its diagonal counts as 1
    matrix, error = (one.triu(unit) if upper else one.tril(-unit) for one in (matrix, error))
    if unit:
        matrix = matrix + _eye(matrix)
    n = matrix.shape[-1]
    moved = error + n * operation.arithmetic.unit_roundoff * matrix.abs()
    inverse = torch.linalg.solve_triangular(matrix, _eye(matrix), upper=upper)
    return _of_solution(operation, inverse, moved, operation.result, 1)


def inverse(operation: Operation) -> Bound:
    """Inverses: what the matrix is off by, times the inverse from both sides."""
    found = operation.result[0]
    moved = operation.error(0) + 2 * _of_matrix(operation)
    grown = _grown(found.abs() @ moved)
    return _known(grown * (found.abs() @ moved @ found.abs())), None


def determinant(operation: Operation) -> Bound:
    """det and slogdet: the sum of what numbers are off by times their cofactors, n roundings."""
    matrix = operation.args[0]
    moved = operation.error(0) + _of_matrix(operation)
    part = (torch.linalg.inv_ex(matrix).inverse.mT.abs() * moved).sum((-2, -1))
    part = torch.where(part < 1, part / (1 - part), math.inf)
    roundings = matrix.shape[-1] * operation.arithmetic.unit_roundoff
    factors, pivots = operation.result[-2:]
    own = part + roundings
    product = operation.error(0) + _of_factors(operation, factors, pivots)
    if operation.name == "_linalg_det":
        return _known(own * operation.result[0].abs()), product, None
    logarithms = factors.diagonal(dim1=-2, dim2=-1).abs().log().abs().sum(-1)
    sign = torch.where(part < math.inf, 0.0, math.inf)
    return sign, _known(own + roundings * (1 + logarithms)), product, None


def cholesky(operation: Operation) -> Bound:
    """Cholesky factors: what the matrix is off by, through the inverse of the factor."""
    upper = bool(operation.kwargs.get("upper") or operation.args[1:2] == (True,))
    factor = operation.result[0].mT if upper else operation.result[0]
    error = operation.error(0).triu().mT if upper else operation.error(0).tril()
    error = error + error.tril(-1).mT  # torch looks at one triangle
    size, n = factor.abs(), factor.shape[-1]
    moved = error + (n + 1) * operation.arithmetic.unit_roundoff * (size @ size.mT)
    back = torch.linalg.solve_triangular(factor, _eye(factor), upper=False).abs()
    inner = back @ moved @ back.mT
    half = inner.tril() - inner.diagonal(dim1=-2, dim2=-1).diag_embed() / 2
    bound = _known(_grown(2 * inner) * (size @ half)).tril()
    return bound.mT if upper else bound, None


def _of_solution(
    operation: Operation, inverse: Tensor, moved: Tensor, result: Tensor, right: int
) -> Tensor:
    """The bound on a system's solution. moved: E, without the bound on the right-hand side."""
    size, error, inverse = result.abs(), operation.error(right), inverse.abs()
    vectors = size.ndim < inverse.ndim or (size.ndim == 1 and inverse.ndim == 2)
    if operation.kwargs.get("left") is False:
        inverse, moved, size, error = inverse.mT, moved.mT, size.mT, error.mT
    if vectors:
        size, error = size.unsqueeze(-1), error.unsqueeze(-1)
    bound = _known(_grown(inverse @ moved) * (inverse @ (moved @ size + error)))
    if vectors:
        return bound.squeeze(-1)
    return bound.mT if operation.kwargs.get("left") is False else bound


def _of_matrix(operation: Operation) -> Tensor:
    factors, pivots, _ = torch.linalg.lu_factor_ex(operation.args[0])
    return _of_factors(operation, factors, pivots)


def _of_factors(operation: Operation, factors: Tensor, pivots: Tensor) -> Tensor:
    """3n u |L||U|, with the matrix's own rows."""
    permutation, lower, upper = torch.lu_unpack(factors, pivots)
    rounded = 3 * factors.shape[-1] * operation.arithmetic.unit_roundoff
    return rounded * (permutation @ (lower.abs() @ upper.abs()))


def _grown(relative: Tensor) -> Tensor:
    """1 / (1 - |R|) for the higher orders, of shape (..., 1, 1); infinite from |R| = 1 on."""
    norm = relative.sum(-1).amax(-1)[..., None, None]
    return torch.where(norm < 1, 1 / (1 - norm), math.inf)


def _known(bound: Any) -> Tensor:
    found: Tensor = bound.nan_to_num(nan=math.inf, posinf=math.inf)
    return found


def _eye(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device).expand(like.shape)
