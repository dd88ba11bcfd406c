"""What is taken out of a mask after the network: pieces that are not the largest, or too small.

A step is plain data, so that the checkpoint keeps what was chosen on validation
(``medtool.predict.choose_postprocessing``). Voxels that share a corner are one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["largest-component", "least-volume"]


@dataclass(frozen=True)
class Step:
    """Pieces of ``labels``, taken together, that are removed.

    ``largest-component``: all but the largest piece (equal ones are all kept);
    ``least-volume``: every piece under ``least_ml``. Removed voxels get the label ``becomes``:
    background, or that of the organ in which a lesion lies.
    """

    kind: Kind
    labels: tuple[int, ...]
    least_ml: float = 0.0
    becomes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; ``step_from_dict`` takes them back."""
        return {**asdict(self), "labels": list(self.labels)}


def step_from_dict(document: Mapping[str, Any]) -> Step:
    """The step whose ``as_dict`` this was."""
    return Step(**{**document, "labels": tuple(document["labels"])})


def postprocessed(
    mask: NDArray[np.unsignedinteger[Any]], steps: Iterable[Step], voxel_ml: float
) -> NDArray[np.unsignedinteger[Any]]:
    """``mask`` (z, y, x) after all steps, in order; the mask that was given stays as it is."""
    done = mask
    for step in steps:
        box = _box_of(done, step.labels)
        if box is None:
            continue
        removed = _removed(_any_of(done[box], step.labels), step, voxel_ml)
        if removed.any():
            done = done.copy() if done is mask else done
            done[box][removed] = step.becomes
    return done


def _removed(marked: NDArray[np.bool_], step: Step, voxel_ml: float) -> NDArray[np.bool_]:
    """Which of the marked voxels go."""
    from scipy import ndimage

    corners = np.ones((3,) * marked.ndim, dtype=bool)
    pieces, count = ndimage.label(marked, corners)
    sizes_vox = np.bincount(pieces.ravel(), minlength=count + 1)
    if step.kind == "largest-component":
        going = sizes_vox < sizes_vox[1:].max(initial=0)
    else:
        going = sizes_vox * voxel_ml < step.least_ml
    going[0] = False
    removed: NDArray[np.bool_] = going[pieces]
    return removed


def _box_of(
    mask: NDArray[np.unsignedinteger[Any]], labels: Sequence[int]
) -> tuple[slice, ...] | None:
    """The box of all voxels with one of the labels: pieces are only looked for in it."""
    rows = [(_any_of(plane, labels)) for plane in mask]
    seen = np.flatnonzero([row.any() for row in rows])
    if not len(seen):
        return None
    plane = np.logical_or.reduce(rows)
    along = [np.flatnonzero(plane.any(axis=1 - axis)) for axis in (0, 1)]
    return tuple(slice(int(found[0]), int(found[-1]) + 1) for found in (seen, *along))


def _any_of(mask: NDArray[np.unsignedinteger[Any]], labels: Sequence[int]) -> NDArray[np.bool_]:
    marked: NDArray[np.bool_] = np.equal(mask, labels[0])
    for label in labels[1:]:
        marked |= mask == label
    return marked
