"""Several checkpoints in one file: what they say together, and whose tensors are whose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medtool.core.checkpoint import RawTensor, read_header, verify_tensors, write_checkpoint
from medtool.core.ensemble import (
    joined_ranges,
    member_header,
    members_of,
    write_ensemble,
)
from medtool.core.errors import CheckpointError
from medtool.data.patient_hashes import hash_patients, seen_patients

LARGEST = {"kind": "largest-component", "ids": [1]}
OTHER = {"kind": "largest-component", "ids": [2]}


def one(folder: Path, name: str, **document: Any) -> Path:
    path = folder / f"{name}.safetensors"
    tensors = [
        RawTensor(f"{prefix}weight", "F32", (1,), name.encode().ljust(4)[:4])
        for prefix in ("model.", "probe.output.", "optimizer.")
    ]
    write_checkpoint(path, {"task": "t", "preset": {"a": 1}, **document}, tensors)
    return path


def test_each_member_keeps_its_tensors_and_its_document(tmp_path: Path) -> None:
    files = {n: one(tmp_path, n, threshold=t) for n, t in (("f0", 0.2), ("f1", 0.6))}
    write_ensemble(tmp_path / "both.safetensors", files)
    header = read_header(tmp_path / "both.safetensors")
    # What only training needs is left out.
    assert sorted(header.tensors) == [
        "model.f0.weight",
        "model.f1.weight",
        "probe.f0.output.weight",
        "probe.f1.output.weight",
    ]
    assert verify_tensors(header) == []
    entry = header.tensors["model.f1.weight"]
    assert header.path.read_bytes()[entry.begin : entry.end] == b"f1  "
    members = members_of(header)
    assert [member.name for member in members] == ["f0", "f1"]
    assert member_header(header, members[1]).document["threshold"] == 0.6
    assert header.document["threshold"] == pytest.approx(0.4)
    assert header.document["preset"] == {"a": 1}


def test_rules_for_masks_are_those_of_more_than_half(tmp_path: Path) -> None:
    files = {
        name: one(tmp_path, name, postprocessing={"steps": steps})
        for name, steps in (("f0", [LARGEST]), ("f1", [LARGEST, OTHER]), ("f2", []))
    }
    document = write_ensemble(tmp_path / "all.safetensors", files)
    assert document["postprocessing"]["steps"] == [LARGEST]


def test_patients_that_any_member_saw_are_known(tmp_path: Path) -> None:
    files = {
        name: one(tmp_path, name, patients=hash_patients(patients))
        for name, patients in (("f0", ["a", "b"]), ("f1", ["b", "c"]))
    }
    document = write_ensemble(tmp_path / "both.safetensors", files)
    assert seen_patients(document["patients"], ["a", "b", "c", "d"]) == {"a", "b", "c"}


def test_ranges_reach_as_far_as_any_member_has_seen() -> None:
    first = {"cases": 3, "model": {"A": 2, "B": 1}, "spacing_mm": [[1.0, 2.0, 3.0]]}
    second = {"cases": 5, "model": {"C": 5}, "spacing_mm": [[0.5, 3.0, 2.0]]}
    joined = joined_ranges([first, second])
    assert joined == {
        "cases": 5,
        "model": {"A": 2, "B": 1, "C": 5},
        "spacing_mm": [[0.5, 2.5, 3.0]],
    }


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    alone, other = one(tmp_path, "f0"), one(tmp_path, "f1", task="u")
    with pytest.raises(CheckpointError, match="different tasks"):
        write_ensemble(tmp_path / "no.safetensors", {"f0": alone, "f1": other})
    write_ensemble(tmp_path / "both.safetensors", {"f0": alone, "f1": one(tmp_path, "f2")})
    with pytest.raises(CheckpointError, match="itself several"):
        files = {"f0": alone, "f1": tmp_path / "both.safetensors"}
        write_ensemble(tmp_path / "no.safetensors", files)
    assert not (tmp_path / "no.safetensors").exists()
