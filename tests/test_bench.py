"""The benchmark's peers agree, and a wrong one would not be timed."""

import pytest
import torch

from bench.peers import PEERS, Batch, Judge


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("peer", [name for name in PEERS if "compile" not in name])
def test_peers_agree(peer: str, dtype: torch.dtype) -> None:
    batch = Batch(100, dtype)
    Judge.of(batch).check(peer, PEERS[peer](batch)())


@pytest.mark.parametrize("error", [1e-6, float("nan")])
def test_a_wrong_peer_is_refused(error: float) -> None:
    batch = Batch(100)
    gradients = PEERS["manual, torch"](batch)()
    gradients["w46"] = gradients["w46"] * (1 + error)
    with pytest.raises(AssertionError, match="a wrong one: d\\(mean loss\\)/dw46 is"):
        Judge.of(batch).check("a wrong one", gradients)
