"""A memory of patients, so that risk sets are real where patients are too large for one batch.

It keeps what earlier steps gave: cheap, and approximate, for what it remembers came from weights of
before. Exact is to look at the patients of a step one by one (``tasks.prognosis_learning``).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, cat, nn

from medtool.nets.survival_losses import Outcomes


class Remembered(NamedTuple):
    """Embeddings (n, features) without gradient, the patients' keys (n), and their outcomes."""

    embeddings: Tensor
    keys: Tensor
    outcomes: Outcomes


class EmbeddingMemory(nn.Module):
    """The latest embeddings of up to ``capacity`` patients, for risk sets of small batches.

    APPROXIMATE: an embedding is from the weights of the step that gave it, and no gradient goes
    into it; what is older than ``oldest`` epochs is left out. A patient that comes again replaces
    its entry. Its buffers hold times and events of patients: they are none of the network's state,
    and are saved with the state of training alone (``train.state``). Each device has its own.
    """

    keys: Tensor
    epochs: Tensor
    embeddings: Tensor
    times: Tensor
    events: Tensor
    strata: Tensor
    label = "approximate: risk sets hold embeddings of earlier steps"

    def __init__(self, capacity: int, features: int, *, oldest: int = 2) -> None:
        super().__init__()
        if capacity < 1 or oldest < 0:
            raise ValueError("a memory holds at least one patient, of this epoch at least")
        self.oldest = oldest
        for name in ("keys", "epochs", "strata"):
            self._keep(name, torch.zeros(capacity, dtype=torch.int64))
        # An epoch of -1 is an empty place.
        self.epochs.fill_(-1)
        self._keep("embeddings", torch.zeros(capacity, features))
        for name in ("times", "events"):
            self._keep(name, torch.zeros(capacity))
        self.eval()

    def _keep(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values, persistent=False)

    def train(self, mode: bool = True) -> EmbeddingMemory:  # noqa: FBT001, FBT002 - torch's own
        """Never in training: what it holds is no running mean that devices share."""
        return super().train(mode=False)

    def remember(self, keys: Tensor, embeddings: Tensor, outcomes: Outcomes, epoch: int) -> None:
        """Keep embeddings (n, features) of patients called by int64 ``keys`` (n).

        Patients without outcome are not kept. Where there is no place, the oldest give theirs.
        """
        for row in range(len(keys)):
            if outcomes.known is not None and not outcomes.known[row]:
                continue
            place = self._place(keys[row])
            self.keys[place] = keys[row]
            self.epochs[place] = epoch
            self.embeddings[place] = embeddings[row].detach()
            self.times[place], self.events[place] = outcomes.times[row], outcomes.events[row]
            self.strata[place] = 0 if outcomes.strata is None else outcomes.strata[row]
            self._to_the_end(place)

    def recall(self, keys: Tensor, epoch: int) -> Remembered:
        """What is kept of patients other than ``keys`` (n) and is not too old, the latest last."""
        young = (self.epochs >= 0) & (self.epochs >= epoch - self.oldest)
        used = young & ~torch.isin(self.keys, keys)
        outcomes = Outcomes(self.times[used], self.events[used], self.strata[used])
        return Remembered(self.embeddings[used], self.keys[used], outcomes)

    def _place(self, key: Tensor) -> int:
        """Where the patient stands; else the first place, which is empty or the oldest's."""
        own = torch.nonzero((self.keys == key) & (self.epochs >= 0))
        return int(own[0]) if len(own) else 0

    def _to_the_end(self, place: int) -> None:
        order = [*range(place), *range(place + 1, len(self.keys)), place]
        for buffer in self.buffers():
            buffer.copy_(buffer[order].clone())


def join_outcomes(outcomes: Outcomes, remembered: Outcomes) -> Outcomes:
    """Outcomes of a batch (n) and remembered ones (m) in one (n + m), the batch first."""
    times, events = outcomes.times, outcomes.events
    known = outcomes.known
    if known is not None:
        known = cat((known, known.new_ones(len(remembered.times))))
    strata = outcomes.strata
    if strata is not None and remembered.strata is not None:
        strata = cat((strata, remembered.strata))
    return Outcomes(
        cat((times, remembered.times)),
        cat((events, remembered.events)),
        strata,
        known,
    )
