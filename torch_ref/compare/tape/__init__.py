"""Operations recorded on one batch and replayed on others, most of them in compiled loops."""

from torch_ref.compare.tape.recording import CannotRecordError, Recording, record
from torch_ref.compare.tape.replay import Replay

__all__ = ["CannotRecordError", "Recording", "Replay", "record"]
