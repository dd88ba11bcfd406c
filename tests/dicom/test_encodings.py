"""Every real file of ct_encodings decodes to what pydicom, else SimpleITK, said of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import series_by_hand

from medtool.core.errors import CaseRefused
from medtool.dicom.decode import decode_frame
from medtool.dicom.frames import open_frames
from medtool.dicom.pixels import stored_values

pytestmark = pytest.mark.real_data

# JPEG .50, .51, .53 and .55 are lossy, and inverse cosine transforms may round differently.
LOSSY_JPEG = {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55)}
LOSSY_TOLERANCE = 2


def entries(folder: Path) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads((folder / "manifest.json").read_text())
    assert len(listed) == 29
    return listed


def frames(path: Path) -> np.ndarray:
    pixels = series_by_hand.pixel_format(series_by_hand.read_header(path))
    planes = [series_by_hand.plane(path, k) for k in range(pixels.frames_in_file)]
    return np.stack([stored_values(p) for p in planes])


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values.astype("<i4")).tobytes()).hexdigest()


def test_each_file_gives_the_values_of_pydicom_or_simpleitk(real_data: Path) -> None:
    folder = real_data / "ct_encodings"
    refused, exact, near = [], [], []
    for entry in entries(folder):
        path = folder / entry["file"]
        pydicom_says, sitk_says = entry["pydicom"], entry["sitk"]
        if not isinstance(pydicom_says, dict) and not isinstance(sitk_says, dict):
            with pytest.raises(CaseRefused) as caught:
                frames(path)
            assert caught.value.code == "truncated-pixels"
            refused.append(entry["file"])
            continue
        values = frames(path)
        if not isinstance(pydicom_says, dict):
            assert_like_sitk(values, entry, path)
            near.append(entry["file"])
        elif entry["transfer_syntax"] in LOSSY_JPEG:
            assert_like_pydicom(values, pydicom_says)
            assert_like_sitk_now(values, entry, path)
            near.append(entry["file"])
        else:
            assert digest(values) == pydicom_says["sha256_int32_le"], entry["file"]
            exact.append(entry["file"])
    assert refused == ["MR_truncated.dcm"]
    assert (len(exact), len(near)) == (21, 7)


def assert_like_pydicom(values: np.ndarray, said: dict[str, Any]) -> None:
    """Range within two stored values, mean within a twentieth of one."""
    assert values.shape in (tuple(said["shape"]), (1, *said["shape"]))
    assert abs(int(values.min()) - said["min"]) <= LOSSY_TOLERANCE
    assert abs(int(values.max()) - said["max"]) <= LOSSY_TOLERANCE
    assert abs(int(values.sum(dtype=np.int64)) - said["sum"]) / values.size < 0.05


def assert_like_sitk(values: np.ndarray, entry: dict[str, Any], path: Path) -> None:
    """As the manifest sums SimpleITK's reading up, and voxel for voxel as it reads now."""
    hu = assert_like_sitk_now(values, entry, path)
    slope, said = float(entry["rescale"][0]), entry["sitk"]
    assert abs(hu.min() - said["min"]) <= LOSSY_TOLERANCE * slope
    assert abs(hu.max() - said["max"]) <= LOSSY_TOLERANCE * slope
    assert abs(hu.mean() - said["mean"]) <= 0.05 * slope


def assert_like_sitk_now(values: np.ndarray, entry: dict[str, Any], path: Path) -> np.ndarray:
    import SimpleITK

    read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    # Enhanced files keep slope and intercept per frame: -1024 in the one that is lossy.
    enhanced = entry["rescale"][0] == "None" and entry["modality"] == "CT"
    slope, intercept = (
        (1.0, -1024.0 if enhanced else 0.0)
        if entry["rescale"][0] == "None"
        else (float(v) for v in entry["rescale"])
    )
    hu = values * slope + intercept
    assert np.abs(hu - read).max() <= LOSSY_TOLERANCE * slope + 1e-6
    return hu


def test_fifteen_encodings_of_one_image_agree(real_data: Path) -> None:
    folder = real_data / "ct_encodings"
    lossless = [
        "BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2",
        "DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99",
        "JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90",
        "JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80",
        "JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70",
        "JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57",
        "LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1",
        "LittleEndianImplicitTransferSyntax_1.2.840.10008.1.2",
        "RLELosslessTransferSyntax_1.2.840.10008.1.2.5",
    ]
    decoded = [frames(folder / f"CTImage_{name}.dcm") for name in lossless]
    for values in decoded[1:]:
        np.testing.assert_array_equal(values, decoded[0])


@pytest.mark.parametrize(
    ("name", "code"),
    [("J2K_pixelrep_mismatch.dcm", "pixel-sign"), ("693_J2KI.dcm", "pixel-precision")],
)
def test_a_stream_that_disagrees_with_its_header_is_said(
    real_data: Path, name: str, code: str
) -> None:
    path = real_data / "ct_encodings" / name
    pixels = series_by_hand.plane(path).pixels
    _, findings = decode_frame(open_frames(path, pixels).frame(0), pixels)
    assert [(f.code, f.severity) for f in findings] == [(code, "warning")]
