"""Twins made from what people have: an nn.Module, or a custom autograd.Function."""

from torch_ref.compare.from_function import from_function
from torch_ref.compare.from_module import from_module

__all__ = ["from_function", "from_module"]
