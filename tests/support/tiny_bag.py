"""A bag classification on tiny pictures: what tests of the family run on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from medtool.core.progress import Reporter
from medtool.core.records import Case, Prepared
from medtool.tasks.bag import BagTask
from medtool.tasks.bag_settings import BagSettings

SIZE_PX = 32
# The smallest ResNet of timm: real batch norms, four stages, quick on tiny pictures.
TINY_BACKBONE = "resnet10t"


def tiny_settings(**sections: Mapping[str, Any]) -> BagSettings:
    """Settings with a small network; keyword arguments replace keys of sections."""
    model = {
        "backbone": TINY_BACKBONE,
        "hidden_features": 8,
        "chunk_slices": 4,
        "batch_norm": "frozen",
    }
    given = {**sections, "model": {**model, **sections.get("model", {})}}
    return BagSettings.model_validate(given)


class TinyBag(BagTask):
    """Slices of noise; positives have a bright square in one of them."""

    name: ClassVar[str] = "tiny-bag"
    summary: ClassVar[str] = "Is there a bright square?"

    def prepare(self, case: Case) -> Prepared:
        """Pictures that depend on the case's id alone, its last slice unused."""
        rng = np.random.default_rng(_number(case))
        count = int(case.facts.get("slices", 6))
        slices = rng.random((count, SIZE_PX, SIZE_PX), dtype=np.float32) / 4
        if case.label:
            slices[count // 2, 8:16, 8:16] += 0.75
        elements = [
            {
                "slice_index": index,
                "instance_number": index + 1,
                "position_mm": 5.0 * index,
                "sop_instance_uid": f"1.2.{index}",
                "used": index < count,
                "reason": "" if index < count else "little-brain",
            }
            for index in range(count + 1)
        ]
        return Prepared(case.case_id, {"slices": slices}, elements=tuple(elements))

    def input_size_px(self) -> int:
        """Rows and columns of the pictures."""
        return SIZE_PX

    def normalise(
        self, slices: NDArray[Any], masks: NDArray[np.bool_] | None
    ) -> NDArray[np.float32]:
        """Values from about -1 to 1, one channel."""
        scaled: NDArray[np.float32] = (slices[:, None] * 2 - 1).astype(np.float32)
        return scaled

    def draw_augmentation(
        self, rng: np.random.Generator, label: float | None
    ) -> Mapping[str, float]:
        """A gain, larger for positives."""
        return {"gain": float(rng.uniform(1.0, 1.2) if label else rng.uniform(0.8, 1.0))}

    def apply_augmentation(
        self,
        image: NDArray[Any],
        mask: NDArray[np.bool_] | None,
        parameters: Mapping[str, float],
    ) -> NDArray[Any]:
        """The picture times the gain."""
        return image * np.float32(parameters["gain"])

    def write_demo(self, folder: Path, seed: int, reporter: Reporter | None = None) -> None:
        """Nothing: tests make their cases in memory."""


def _number(case: Case) -> int:
    return sum(ord(letter) * 31**place for place, letter in enumerate(case.case_id)) % 2**32


def tiny_cases(count: int, *, slices: int = 6) -> list[Case]:
    """Cases of alternating label, one a patient, with ``slices`` slices and more."""
    return [
        Case(
            case_id=f"case{number:02}",
            patient_id=f"patient{number:02}",
            study_uid=f"1.2.3.{number}",
            inputs={"ct": Path("nowhere")},
            label=float(number % 2),
            facts={"slices": slices + number},
        )
        for number in range(count)
    ]
