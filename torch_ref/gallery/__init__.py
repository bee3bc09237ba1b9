"""The gallery: right hand-written backward passes of common layers, each a Twin, to learn from."""
