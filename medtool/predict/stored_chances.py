"""Probabilities of a whole image, kept on the disk as they are decided plane by plane.

In memory those of a large scan would be several times the scan. The file has no name where the
system allows that, and lies in the folder of temporary files: nothing of a patient is left behind.
"""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from medtool.core.files import cannot_write
from medtool.data.scratch import scratch_root

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.predict.decide import Placement


class StoredChances(AbstractContextManager["StoredChances"]):
    """Takes the probabilities of one plane after another; gives them on the image's own axes.

    The array that it gave outlives the block.
    """

    def __init__(self, placement: Placement, outside: NDArray[np.float32]) -> None:
        """``outside`` (channels) stands where nothing was looked at."""
        self._turn = placement.turn
        self._crop = placement.crop
        self._outside = outside.astype(np.float32)[:, None, None]
        self._size = tuple(placement.image_size_vox[axis] for axis in self._turn.axes)
        folder = scratch_root()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._place = folder
        self._file = tempfile.TemporaryFile(dir=folder)
        self._pad(self._crop[0].start)

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def add(self, chances: NDArray[np.float32]) -> None:
        """The next plane (channels, y, x) of what was cut out of the image, in the turned axes."""
        plane = self._plane()
        plane[(slice(None), *self._crop[1:])] = chances
        self._write(plane)

    def whole(self) -> NDArray[np.float32]:
        """(channels, z, y, x) of the image, read from the disk where it is asked for.

        To be called once, after the last plane.
        """
        self._pad(self._size[0] - self._crop[0].stop)
        self._file.flush()
        depth, *plane = self._size
        stored = np.memmap(
            self._file, np.float32, "r", shape=(depth, len(self._outside), *plane)
        ).transpose(1, 0, 2, 3)
        return self._turn.back(stored)

    def _plane(self) -> NDArray[np.float32]:
        return np.broadcast_to(self._outside, (len(self._outside), *self._size[1:])).copy()

    def _pad(self, count: int) -> None:
        for _ in range(count):
            self._write(self._plane())

    def _write(self, plane: NDArray[np.float32]) -> None:
        try:
            self._file.write(np.ascontiguousarray(plane).data)
        except OSError as error:
            raise cannot_write(self._place, error) from error
