"""Which part of the work is this process's: as torchrun says it, or whoever else starts several."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass


class RanksError(ValueError):
    """The environment names no rank that can be; the message is one clear sentence."""


@dataclass(frozen=True)
class Ranks:
    """This process is `rank` of `world`, and `local` of the `beside` ones on its machine.

    restarted: whether torchrun started all ranks once more after one had died.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    beside: int = 0  # 0 where torchrun has not said it
    machines: int = 1
    restarted: bool = False

    @staticmethod
    def of(environment: Mapping[str, str] = os.environ) -> "Ranks":
        """By RANK and WORLD_SIZE; rank 0 of 1 where neither is set. Raises RanksError."""
        names = ("RANK", "WORLD_SIZE")
        if not any(name in environment for name in names):
            return Ranks()
        said = " ".join(f"{name}={environment.get(name, '')}" for name in names)
        try:
            rank, world = (int(environment[name]) for name in names)
        except (KeyError, ValueError):
            raise RanksError(
                f"RANK and WORLD_SIZE must both be whole numbers; got {said}."
            ) from None
        if not 0 <= rank < world:
            raise RanksError(f"RANK must be from 0 to WORLD_SIZE - 1; got {said}.")
        return Ranks(
            rank,
            world,
            _number(environment, "LOCAL_RANK", rank),
            _number(environment, "LOCAL_WORLD_SIZE", 0),
            _number(environment, "GROUP_WORLD_SIZE", 1),
            _number(environment, "TORCHELASTIC_RESTART_COUNT", 0) > 0,
        )

    def has(self, shard: int) -> bool:
        return shard % self.world == self.rank

    def command(self, arguments: list[str]) -> str:
        """How gradtwin is started on these ranks with these arguments, to be typed."""
        if not self.beside:
            return shlex.join(["gradtwin", *arguments])
        several = ["--nnodes", str(self.machines)] if self.machines > 1 else []
        start = ["torchrun", *several, "--nproc-per-node", str(self.beside), "-m", "torch_ref"]
        return shlex.join([*start, *arguments])


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else default
