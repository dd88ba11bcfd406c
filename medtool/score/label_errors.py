"""Labels that held-out predictions contradict with confidence: cases worth a second look.

The rule of confident learning (Northcutt 2021): a case is suspected when the probability of the
other class reaches the mean probability that cases of that class themselves get. Only predictions
of cases that did not train the model may be asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# With fewer cases of a class its mean probability says nothing.
FEWEST_OF_A_CLASS = 5


def suspected_label_errors(per_case: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of ``per_case`` (label, probability, ...) that are suspected, the surest first.

    Each has ``bar`` added: the probability of the other class that made it suspected.
    """
    labels = np.asarray([row["label"] for row in per_case], dtype=np.intp)
    scores = np.asarray([row["probability"] for row in per_case], dtype=np.float64)
    counts = np.bincount(labels, minlength=2)
    if counts.min() < FEWEST_OF_A_CLASS:
        return []
    # Mean probability that each class gives to itself.
    own = (float(1.0 - scores[labels == 0].mean()), float(scores[labels == 1].mean()))
    suspected = []
    for row, label, score in zip(per_case, labels, scores, strict=True):
        other = 1 - int(label)
        of_other = float(score if other == 1 else 1.0 - score)
        # Beyond the bar and beyond one half: a model that knows nothing suspects nobody.
        if of_other >= own[other] and of_other > 0.5:
            suspected.append({**row, "bar": own[other], "against": of_other})
    return sorted(suspected, key=lambda row: -float(row["against"]))
