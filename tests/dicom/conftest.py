"""Memory as it is where other patients were read before: nothing in it may be seen again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from medtool.dicom import volume


@pytest.fixture(autouse=True)
def memory_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes are read into memory full of what is no number."""

    def dirty(shape: Sequence[int]) -> NDArray[np.float32]:
        return np.full(tuple(shape), np.nan, np.float32)

    monkeypatch.setattr(volume, "array_to_fill", dirty)
