"""The header of a checkpoint: round trips, refusals, and which file a folder means."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from medtool.core.checkpoint import (
    FORMAT_VERSION,
    METADATA_KEY,
    RawTensor,
    find_checkpoint,
    read_header,
    rewrite_checkpoint,
    verify_tensors,
    write_checkpoint,
)
from medtool.core.errors import CheckpointError, MachineError


def raw(name: str, array: np.ndarray, dtype: str = "F32") -> RawTensor:
    return RawTensor(name, dtype, array.shape, array.tobytes())


def write(path: Path, **document: object) -> Path:
    tensors = [
        raw("model.head.weight", np.arange(6, dtype=np.float32).reshape(2, 3)),
        raw("model.flags", np.array([1, 0, 1], dtype=np.uint8), "U8"),
        raw("optimizer.head.weight.exp_avg", np.zeros((2, 3), dtype=np.float32)),
        raw("probe.input.x", np.ones(2, dtype=np.float64), "F64"),
        raw("rng.scalar", np.array(7, dtype=np.int64), "I64"),
    ]
    write_checkpoint(path, {"task": "tiny", **document}, tensors)
    return path


def test_the_safetensors_library_reads_what_we_write(tmp_path: Path) -> None:
    arrays = load_file(write(tmp_path / "c.safetensors"))
    assert arrays["model.head.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert arrays["model.flags"].tolist() == [1, 0, 1]
    assert arrays["probe.input.x"].tolist() == [1.0, 1.0]
    assert arrays["rng.scalar"] == 7


def test_header_tells_document_and_tensors(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "c.safetensors", history=[{"loss": float("nan")}]))
    assert header.document["format"] == FORMAT_VERSION
    assert header.document["history"] == [{"loss": None}]
    assert header.tensors["model.head.weight"].shape == (2, 3)
    assert header.tensors["model.head.weight"].size_bytes == 24
    assert header.tensors["rng.scalar"].elements == 1
    assert header.names("model.") == ["model.head.weight", "model.flags"]
    assert not header.is_slim


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.safetensors"), write(tmp_path / "b.safetensors")
    assert first.read_bytes() == second.read_bytes()


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "c.safetensors")
    assert verify_tensors(read_header(path)) == []
    data = bytearray(path.read_bytes())
    data[read_header(path).tensors["model.flags"].begin] ^= 1
    path.write_bytes(data)
    assert verify_tensors(read_header(path)) == ["model.flags"]


def test_slim_keeps_model_and_probe(tmp_path: Path) -> None:
    path = write(tmp_path / "c.safetensors")
    rewrite_checkpoint(path, tmp_path / "slim.safetensors", {"threshold": 0.25}, slim=True)
    slim = read_header(tmp_path / "slim.safetensors")
    assert sorted(slim.tensors) == ["model.flags", "model.head.weight", "probe.input.x"]
    assert slim.is_slim
    assert slim.document["threshold"] == 0.25
    assert slim.document["hashes"]["model"] == read_header(path).document["hashes"]["model"]
    assert verify_tensors(slim) == []


def test_rewriting_in_place_changes_the_document_only(tmp_path: Path) -> None:
    path = write(tmp_path / "c.safetensors")
    before = load_file(path)
    rewrite_checkpoint(path, path, {"threshold": 0.5})
    after = load_file(path)
    assert read_header(path).document["threshold"] == 0.5
    assert all((before[name] == after[name]).all() for name in before)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "c.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in [*range(0, len(data) - 1, 97), len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            read_header(cut)


def test_truncated_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "c.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        read_header(path)


def test_foreign_safetensors_is_refused(tmp_path: Path) -> None:
    save_file({"w": np.zeros(3)}, tmp_path / "f.safetensors")
    with pytest.raises(CheckpointError, match="not written by medtool"):
        read_header(tmp_path / "f.safetensors")


def test_a_pickle_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="pickled"):
        read_header(tmp_path / "w.pt")


def test_newer_format_is_refused(tmp_path: Path) -> None:
    document = json.dumps({"format": FORMAT_VERSION + 1, "versions": {"medtool": "99.0"}})
    head = json.dumps({"__metadata__": {METADATA_KEY: document}}).encode()
    path = tmp_path / "n.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head)
    with pytest.raises(CheckpointError, match="newer") as error:
        read_header(path)
    assert "99.0" in str(error.value)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]},
        {"dtype": "nonsense", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]},
        [1, 2],
    ],
)
def test_entries_that_contradict_themselves_are_refused(tmp_path: Path, entry: object) -> None:
    head = json.dumps({"w": entry, "__metadata__": {METADATA_KEY: '{"format": 1}'}}).encode()
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(8))
    with pytest.raises(CheckpointError, match="damaged"):
        read_header(path)


def test_missing_offers_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path / "best.safetensors")
    with pytest.raises(CheckpointError) as error:
        read_header(tmp_path / "bst.safetensors")
    assert error.value.nearest.endswith("best.safetensors")


def test_a_run_folder_means_its_best(tmp_path: Path) -> None:
    metrics = {"primary": "auroc", "selection": {"auroc": 0.875}}
    best = write(tmp_path / "checkpoints" / "best.safetensors", epoch=4, metrics=metrics)
    write(tmp_path / "checkpoints" / "last.safetensors")
    path, why = find_checkpoint(tmp_path)
    assert path == best
    assert "(epoch 4, counted from 0, auroc 0.875" in why
    assert find_checkpoint(tmp_path / "checkpoints")[0] == best
    best.unlink()
    path, why = find_checkpoint(tmp_path)
    assert path.name == "last.safetensors"
    assert "no best" in why


def test_folds_are_not_chosen_between(tmp_path: Path) -> None:
    for fold in range(2):
        write(tmp_path / f"fold_{fold}" / "checkpoints" / "best.safetensors")
    with pytest.raises(CheckpointError, match="several folds"):
        find_checkpoint(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no selected checkpoint"):
        find_checkpoint(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write(tmp_path / "c.safetensors")
    before = path.read_bytes()
    broken = RawTensor("model.w", "F32", (1,), memoryview(np.zeros((4, 4))[:, 0]))
    with pytest.raises(BufferError):
        write_checkpoint(path, {}, [broken])
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_path_that_cannot_be_written_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError):
        write_checkpoint(tmp_path / "file" / "c.safetensors", {}, [])


def test_a_header_whose_length_reads_as_that_of_an_archive_is_read(tmp_path: Path) -> None:
    """19,280 bytes are 50 4B in hexadecimal, turned: "PK", as a zip archive begins."""
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, {"task": "t", "note": ""}, [])
    length = int.from_bytes(path.read_bytes()[:8], "little")
    write_checkpoint(path, {"task": "t", "note": "x" * (0x4B50 - length)}, [])
    assert path.read_bytes()[:2] == b"PK"
    assert read_header(path).task == "t"
