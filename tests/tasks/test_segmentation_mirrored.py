"""Patches that are mirrored along all axes, along none, or the patient's left for right alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from medtool_segment import Segment
from medtool_segment.demo import write_dataset
from untrained_segment import write_model

from medtool.core.geometry import Grid
from medtool.core.records import Case, ExampleKey, Prepared, Source
from medtool.data.case_file import to_bytes
from medtool.data.placement import Placement
from medtool.predict.model import load_model
from medtool.tasks.segmentation_examples import PatchExamples

SIZE_VOX, PATCH_VOX = (20, 22, 24), [16, 16, 16]
DRAWS = 60
# Of voxels that may be decided otherwise: windows begin and weigh a voxel otherwise from the other
# end. Random weights decide 0.17 to 0.22 of the voxels otherwise along other axes, 0.02 along this.
SAME_MOST = 0.05
# Columns run to the head, rows to the left, slices to the back: left and right are array axis 1.
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def prepared_with(direction: tuple[float, ...], axes: tuple[int, ...]) -> Prepared:
    """A case whose channel k grows along axis k of the array."""
    grid = Grid(SIZE_VOX[::-1], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), direction)
    placement = Placement(
        axes_forward=axes,
        input_size_vox=SIZE_VOX,
        spacing_mm=(1.0, 1.0, 1.0),
        box=tuple((0, length) for length in SIZE_VOX),
        prepared_spacing_mm=(1.0, 1.0, 1.0),
        prepared_size_vox=SIZE_VOX,
        flipped=(False, False, False),
    )
    arrays = {
        "image": np.indices(SIZE_VOX).astype(np.float32),
        "label": np.zeros(SIZE_VOX, dtype=np.int8),
    }
    return Prepared("one", arrays, grids={"image": grid}, facts=placement.as_facts())


def task_of(mirror: object, patch_vox: list[int]) -> Segment:
    settings = {
        "data": {"channels": ["z", "y", "x"], "label_ids": {"background": [0], "a": [1]}},
        "model": {"patch_size_vox": patch_vox},
        "augment": {"mirror": mirror},
        "train": {"foreground_share": 0.0},
    }
    return Segment(Segment.settings_type.model_validate(settings))


def slopes(folder: Path, prepared: Prepared, task: Segment) -> Iterator[np.ndarray]:
    """Of many patches, the mean slope of each channel along each axis, (channels, axes)."""
    path = folder / "one"
    path.write_bytes(b"".join(to_bytes(prepared)))
    examples = PatchExamples(
        task.settings, [Case("one", "one", "", ())], {"one": path}, training=True
    )
    for copy in range(DRAWS):
        image = examples[ExampleKey(0, 0, 0, copy)].image.numpy()
        axes = range(1, image.ndim)
        inner = image[(slice(None), *(slice(4, 12) for _ in axes))]
        means = tuple(axes)
        yield np.stack([np.diff(inner, axis=axis).mean(axis=means) for axis in axes], axis=1)


@pytest.mark.parametrize(
    ("mirror", "direction", "axes", "wanted"),
    [
        (True, AXIAL, (0, 1, 2), {0, 1, 2}),
        (False, AXIAL, (0, 1, 2), set()),
        ("left-right", AXIAL, (0, 1, 2), {2}),
        ("left-right", SAGITTAL, (0, 1, 2), {1}),
        # The plan turned the axes: what was axis 1 is the first now.
        ("left-right", SAGITTAL, (1, 2, 0), {0}),
    ],
)
def test_which_axes_of_patches_are_mirrored(
    tmp_path: Path,
    mirror: object,
    direction: tuple[float, ...],
    axes: tuple[int, ...],
    wanted: set[int],
) -> None:
    task = task_of(mirror, PATCH_VOX)
    found = slopes(tmp_path, prepared_with(direction, axes), task)
    # Patches are turned by 30 degrees at most.
    assert {int(n) for one in found for n in np.flatnonzero(np.diag(one) < 0)} == wanted


@pytest.mark.parametrize(("axes", "mirrored"), [((0, 1, 2), True), ((1, 2, 0), False)])
def test_planes_that_follow_each_other_from_left_to_right_are_not_mirrored(
    tmp_path: Path, axes: tuple[int, ...], mirrored: bool
) -> None:
    found = slopes(tmp_path, prepared_with(SAGITTAL, axes), task_of("left-right", [16, 16]))
    # A plane may be turned upside down, which changes the signs of both axes.
    assert any(np.linalg.det(one[1:]) < 0 for one in found) == mirrored


def test_inputs_are_mirrored_as_patches_were(tmp_path: Path) -> None:
    """A mean over mirrored inputs does not care which way round its input is, along those axes."""
    write_dataset(tmp_path / "data", seed=4, cases=1)
    write_model(tmp_path / "model.safetensors", "[1.5, 1.1, 1.1]", "augment.mirror=left-right")
    for mirror, wanted in (("false", set()), ("true", {2})):
        model = load_model(
            tmp_path / "model.safetensors", device="cpu", assignments=(f"infer.mirror={mirror}",)
        )
        (case, *_) = model.task.find(Source((tmp_path / "data" / "imagesTr",))).cases
        prepared = model.task.prepare(case)
        mask = model.task.predict(model, prepared, case).arrays["mask"]
        unmoved = set()
        for axis in range(3):
            image = np.flip(prepared.arrays["image"], axis + 1).copy()
            other = replace(prepared, arrays={**prepared.arrays, "image": image})
            flipped = np.flip(model.task.predict(model, other, case).arrays["mask"], axis)
            if np.mean(flipped != mask) < SAME_MOST:
                unmoved.add(axis)
        assert unmoved == wanted
