"""Twins of others' code: a custom autograd.Function, or any two functions."""
