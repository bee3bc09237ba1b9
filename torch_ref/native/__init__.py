"""Graphs of symbols, and the C code that is made of them; no formula of anybody's is in here."""
