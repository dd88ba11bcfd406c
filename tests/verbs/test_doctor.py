"""``doctor``: what is here, and that a model computes here what it promised."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_plugin import install_plugin
from tiny_task import TinyTask, write_tiny_cohort

from medtool.core.checkpoint import RawTensor, read_header, rewrite_checkpoint, write_checkpoint
from medtool.core.errors import CheckpointError, ExitStatus
from medtool.verbs.doctor import Package, codecs, doctor, packages, prove
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint that a training of the tiny task left; the task is installed."""
    folder = tmp_path_factory.mktemp("doctor")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(install_plugin(folder / "site")))
        patch.chdir(folder)
        write_tiny_cohort(folder, patients=24)
        result = train(
            TrainOptions(
                task=TinyTask,
                assignments=("train.epochs=2", "metrics.bootstrap_draws=100"),
                run=RunOptions(run="r", device="cpu", workers=0),
            )
        )
        yield result.checkpoint


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(trained, tmp_path / "copy.safetensors"))


def change_a_weight(path: Path, change: float) -> None:
    """Another weight, written as if it were right: only the probe can tell."""
    header = read_header(path)
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    arrays["model.head.bias"] += np.float32(change)
    tensors = [
        RawTensor(name, header.tensors[name].dtype, array.shape, array.tobytes())
        for name, array in arrays.items()
    ]
    write_checkpoint(path, header.document, tensors)


def test_a_trained_model_is_reproduced_in_both_precisions(trained: Path) -> None:
    exact, reduced = prove(trained, "cpu")
    assert (exact.precision, exact.tolerance, exact.passed) == ("32", 1e-4, True)
    # The same machine: not merely within the tolerance (sums may begin elsewhere in memory).
    assert exact.share < 1e-6
    assert (reduced.precision, reduced.tolerance, reduced.passed) == ("bf16", 1e-2, True)
    # bfloat16 has 8 bits: its answer differs, or it did not compute in it.
    assert 0 < reduced.share <= 1e-2


def test_the_stored_answer_is_that_of_the_weights(trained: Path) -> None:
    """The probe worked out again in float64, without torch."""
    t = {
        name: array.astype(np.float64) for name, array in load_file(trained).items() if "." in name
    }
    flat = t["probe.input.slices"].reshape(3, -1)
    hidden = np.tanh(flat @ t["model.trunk.weight"].T + t["model.trunk.bias"])
    logits = hidden @ t["model.head.weight"].T + t["model.head.bias"]
    assert t["probe.output.logit"] == pytest.approx(logits.max(), abs=1e-5)


@pytest.mark.parametrize(("change", "passes"), [(5e-5, True), (1e-3, False)])
def test_a_weight_that_changed_shows_above_1e_4(copy: Path, change: float, passes: bool) -> None:  # noqa: FBT001
    change_a_weight(copy, change)
    # A logit below 1 in size is compared with 1: the bias moves it by as much as it changed.
    exact = prove(copy, "cpu")[0]
    assert exact.share == pytest.approx(change, rel=0.2)
    assert exact.passed is passes


def test_a_model_that_is_not_reproduced_is_a_fault_of_the_machine(
    copy: Path, medtool: Callable
) -> None:
    assert medtool("doctor", "--checkpoint", copy, "--device", "cpu").status == ExitStatus.DONE
    change_a_weight(copy, 1.0)
    found = medtool("doctor", "--checkpoint", copy, "--device", "cpu")
    assert found.status == ExitStatus.MACHINE
    assert "Probe     NOT REPRODUCED on cpu in 32: difference" in found.out
    assert "(allowed 1e-04)" in found.out
    read = json.loads(medtool("doctor", "-c", copy, "--device", "cpu", "--json").out)
    assert [proof["passed"] for proof in read["proofs"]] == [False, False]


def test_a_flipped_byte_is_refused_before_any_answer(copy: Path, medtool: Callable) -> None:
    data = bytearray(copy.read_bytes())
    data[read_header(copy).tensors["model.trunk.weight"].begin] ^= 1
    copy.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        prove(copy, "cpu")
    found = medtool("doctor", "--checkpoint", copy)
    assert found.status == ExitStatus.USAGE
    assert "model.trunk.weight first" in found.err


def test_slim_checkpoints_are_proved_too(copy: Path) -> None:
    rewrite_checkpoint(copy, copy, {}, slim=True)
    assert all(proof.passed for proof in prove(copy, "cpu"))


def test_without_a_probe_nothing_can_be_proved(copy: Path) -> None:
    header, arrays = read_header(copy), load_file(copy)
    kept = [
        RawTensor(name, header.tensors[name].dtype, array.shape, array.tobytes())
        for name, array in arrays.items()
        if not name.startswith("probe.")
    ]
    write_checkpoint(copy, header.document, kept)
    with pytest.raises(CheckpointError, match="no probe"):
        prove(copy, "cpu")


# PS3.6, table A-1: the syntaxes of images that the intake promises.
SYNTAXES = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.5": "RLE Lossless",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline (Process 1)",
    "1.2.840.10008.1.2.4.51": "JPEG Extended (Process 2 and 4)",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless, Non-Hierarchical (Process 14)",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless, Non-Hierarchical, First-Order Prediction "
    "(Process 14 [Selection Value 1])",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless Image Compression",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Lossy (Near-Lossless) Image Compression",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Image Compression (Lossless Only)",
    "1.2.840.10008.1.2.4.91": "JPEG 2000 Image Compression",
    "1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000 Image Compression (Lossless Only)",
}


def test_syntaxes_are_listed_by_uid_and_name() -> None:
    found = {codec.uid: codec for codec in codecs()}
    assert {uid: found[uid].name for uid in SYNTAXES} == SYNTAXES
    assert all(codec.readable for codec in found.values())


def test_without_its_library_compressed_images_are_said_to_be_unreadable(
    monkeypatch: pytest.MonkeyPatch, medtool: Callable
) -> None:
    # None in sys.modules makes the import fail, as if the package were not there.
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    found = {codec.uid: codec for codec in codecs()}
    assert found["1.2.840.10008.1.2.1"].readable
    assert found["1.2.840.10008.1.2.5"].readable
    assert not found["1.2.840.10008.1.2.4.80"].readable
    assert "imagecodecs" in found["1.2.840.10008.1.2.4.80"].why
    assert "cannot read JPEG-LS Lossless Image Compression" in medtool("doctor").out


def test_the_base_packages_are_here_with_their_purpose() -> None:
    found = {package.name: package for package in packages() if not package.extra}
    assert found["torch"].found
    assert found["torch"].purpose == "networks: training, and answering with PyTorch"
    assert found["blosc2"].purpose == "the cache"
    assert all(package.found for package in found.values())
    # What only developers need is no user's business.
    names = {package.name for package in packages()}
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "nibabel", "pipx"}


def test_a_missing_package_is_unhealthy_unless_it_is_an_extra() -> None:
    well = doctor(device="cpu")
    assert well.healthy
    lost = Package("sitk", ">=2", "", "", "images")
    assert not replace(well, packages=(*well.packages, lost)).healthy
    assert replace(well, packages=(*well.packages, replace(lost, extra="wide"))).healthy
    assert (lost.install_line, replace(lost, extra="wide").install_line) == (
        "pip install medtool",
        'pip install "medtool[wide]"',
    )
    assert not replace(well, devices=()).healthy


def test_doctor_says_what_this_machine_is(medtool: Callable) -> None:
    found = medtool("doctor")
    assert found.status == ExitStatus.DONE
    assert re.search(r"^  cpu      \d+ threads; precision 32(, bf16)?$", found.out, re.MULTILINE)
    read = json.loads(medtool("doctor", "--json").out)
    assert read["machine"]["cores_usable"] >= 1
    assert read["free_bytes"] > 0
    assert read["python"] == sys.version.split()[0]
    assert read["proofs"] == []
