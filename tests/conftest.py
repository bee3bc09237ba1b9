"""What the tests share."""

import os

import pytest
import torch

# Else every program that a test starts compiles all of ours once more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.pop("COLUMNS", None)  # workers have one of their own: what is printed is for a pipe
# As many processes as processors share the tests: threads of torch's own would only be in the way.
torch.set_num_threads(1)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Every device the tests run on; cuda is skipped where there is none."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return request.param
