"""Both sides of a twin on a batch: what each gives, and how far rounding may have moved it.

`answers` runs both as they are. Then each is recorded as a graph and walked: `reference` is
autograd's side, `manual` the hand's, which may be code that has no graph. `granted` says what that
is granted, by `noise` in its operations where it loses digits. `faithful` tells whether a graph
does what it was recorded from. `recorder` puts the two together, and keeps what is known of a twin.
"""

from torch_ref.compare.sides.recorder import Recorder, Sides

__all__ = ["Recorder", "Sides"]
