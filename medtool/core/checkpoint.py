"""Checkpoint files: reading what a model is, without torch and without its tensors.

A checkpoint is one ``.safetensors`` file: 8 bytes with the length of the header (little endian),
the header as JSON, then the bytes of the tensors. The header's ``__metadata__`` holds one JSON
document under the key ``medtool``; tensors are named ``model.*``, ``optimizer.*``, ``rng.*`` and
``probe.*``. Nothing in it can run code. Only the standard library is needed here.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtool.core.deployed import find_deployed
from medtool.core.errors import CheckpointError
from medtool.core.files import replacing
from medtool.core.names import nearest_name

FORMAT_VERSION = 1
METADATA_KEY = "medtool"
SUFFIX = ".safetensors"
BEST_NAME = "best" + SUFFIX
LAST_NAME = "last" + SUFFIX
CHECKPOINTS_FOLDER = "checkpoints"
# Beside that folder: the preset of the run, with the paths that no checkpoint keeps.
PRESET_FILE = "preset.toml"

# The limit of the safetensors library itself; a longer header is damage or an attack.
LONGEST_HEADER_BYTES = 100_000_000
LENGTH_BYTES = 8
# Of a zip archive. Two bytes of it would not do: "PK" is also a header of 19,280 bytes.
ZIP_START = b"PK\x03\x04"
# Tensors begin at multiples of this, so that they can be read in place.
ALIGNMENT_BYTES = 8
# What a model needs to answer and to be proved; the rest is for training on.
SLIM_PREFIXES = ("model.", "probe.")

BYTES_OF_TYPE: Mapping[str, int] = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: type name, shape, and its bytes counted from the file's begin."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor."""
        return self.end - self.begin

    @property
    def elements(self) -> int:
        """Numbers in the tensor; 1 for a scalar."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class RawTensor:
    """One tensor to be written: type name, shape, and its bytes in row-major order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    def sha256(self) -> str:
        """Hash of name, type, shape and bytes."""
        return _tensor_hash(self.name, self.dtype, self.shape, self.data)


@dataclass(frozen=True)
class CheckpointHeader:
    """What the head of a checkpoint says.

    ``document`` holds: format, task, preset, layers, groups, stages, epoch, step, metrics,
    threshold, history, fingerprint, training_range, weights, versions, synthetic,
    patients (salted slow hashes), hashes, selection, created_by. ``tensors`` maps names to
    entries, in the order of the file.
    """

    path: Path
    document: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]
    size_bytes: int

    def names(self, prefix: str) -> list[str]:
        """Names of the tensors that begin with ``prefix``, in the order of the file."""
        return [name for name in self.tensors if name.startswith(prefix)]

    @property
    def task(self) -> str:
        """Name of the task that the model is for."""
        return str(self.document.get("task", ""))

    @property
    def is_slim(self) -> bool:
        """Whether what only training needs was left out."""
        # A training that has not begun has no state of its optimiser, but one of its generator.
        return not self.names("optimizer.") and not self.names("rng.")


def read_header(path: Path) -> CheckpointHeader:
    """Read and check the head of the checkpoint ``path``; reads no tensor.

    Of a model file of an optimised folder it is the document beside it. Raises CheckpointError
    where the file is missing, no safetensors file, truncated, not written by medtool, or of a
    newer format.
    """
    deployed = None if path.suffix == SUFFIX else find_deployed(path)
    if deployed is not None:
        path = deployed.head
    header, data_begin, size_bytes = _read_json_header(path)
    metadata = header.pop("__metadata__", {})
    tensors = _entries(path, header, data_begin, size_bytes)
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise CheckpointError(
            "This safetensors file was not written by medtool.",
            where=str(path),
            met="a header without medtool's document",
            wanted="a checkpoint that 'medtool train' wrote",
            how="weights from elsewhere can start a training; they cannot answer by themselves.",
        )
    try:
        document = json.loads(text)
    except ValueError as error:
        raise _damaged(path, f"medtool's document is no JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("format"), int):
        raise _damaged(path, "medtool's document names no format")
    if document["format"] > FORMAT_VERSION:
        raise CheckpointError(
            "This checkpoint was written by a newer medtool.",
            where=str(path),
            met=f"format {document['format']}"
            f" (medtool {document.get('versions', {}).get('medtool', 'unknown')})",
            wanted=f"format {FORMAT_VERSION} or older",
            how="install a newer medtool",
        )
    return CheckpointHeader(path, document, tensors, size_bytes)


def _read_json_header(path: Path) -> tuple[dict[str, Any], int, int]:
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
            file.seek(0)
            start = file.read(LENGTH_BYTES)
            if len(start) < LENGTH_BYTES:
                raise _not_a_checkpoint(path, f"{size_bytes} bytes", start)
            (length,) = struct.unpack("<Q", start)
            if length > LONGEST_HEADER_BYTES or start.startswith(ZIP_START):
                raise _not_a_checkpoint(path, "a file that does not begin as one", start)
            if LENGTH_BYTES + length > size_bytes:
                raise _truncated(path, size_bytes, LENGTH_BYTES + length)
            raw = file.read(length)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise CheckpointError(
            "The checkpoint cannot be read.", where=str(path), met=error.strerror or str(error)
        ) from error
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _not_a_checkpoint(path, "a header that is no JSON", start) from error
    if not isinstance(header, dict):
        raise _not_a_checkpoint(path, "a header that is no table", start)
    return header, LENGTH_BYTES + length, size_bytes


def _entries(
    path: Path, header: Mapping[str, Any], data_begin: int, size_bytes: int
) -> dict[str, TensorEntry]:
    tensors: dict[str, TensorEntry] = {}
    for name, value in header.items():
        try:
            begin, end = value["data_offsets"]
            shape = tuple(int(n) for n in value["shape"])
            entry = TensorEntry(str(value["dtype"]), shape, data_begin + begin, data_begin + end)
        except (TypeError, KeyError, ValueError) as error:
            raise _damaged(path, f"the entry of tensor '{name}' cannot be understood") from error
        wanted_bytes = BYTES_OF_TYPE.get(entry.dtype, 0) * entry.elements
        if begin < 0 or min(shape, default=1) < 0 or entry.size_bytes != wanted_bytes:
            raise _damaged(path, f"the entry of tensor '{name}' contradicts itself")
        if entry.end > size_bytes:
            raise _truncated(path, size_bytes, entry.end)
        tensors[name] = entry
    return dict(sorted(tensors.items(), key=lambda item: item[1].begin))


def write_checkpoint(
    path: Path, document: Mapping[str, Any], tensors: Iterable[RawTensor]
) -> dict[str, Any]:
    """Write ``path`` whole or not at all; gives the document as written.

    ``hashes`` (SHA-256 of each tensor, and of all ``model.*`` together) and ``format`` are added
    to the document. Raises MachineError where the disk is full or read-only.
    """
    # Larger types first keeps every tensor aligned; names make the order, and so the file, fixed.
    ordered = sorted(tensors, key=lambda t: (-BYTES_OF_TYPE[t.dtype], t.name))
    hashes = {tensor.name: tensor.sha256() for tensor in ordered}
    complete = {
        "format": FORMAT_VERSION,
        **{key: value for key, value in document.items() if key not in ("format", "hashes")},
        "hashes": {"model": model_hash(hashes), "tensors": dict(sorted(hashes.items()))},
    }
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: plain_json(complete)}}
    offset = 0
    for tensor in ordered:
        end = offset + len(memoryview(tensor.data).cast("B"))
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % ALIGNMENT_BYTES)
    with replacing(path) as file:
        file.write(struct.pack("<Q", len(head)))
        file.write(head)
        for tensor in ordered:
            file.write(memoryview(tensor.data).cast("B"))
    return complete


def rewrite_checkpoint(
    source: Path, target: Path, changes: Mapping[str, Any], *, slim: bool = False
) -> None:
    """Write ``source`` again as ``target`` with ``changes`` to its document.

    ``slim`` leaves out what only training needs. The two paths may be the same file.
    """
    header = read_header(source)
    names = [n for n in header.tensors if not slim or n.startswith(SLIM_PREFIXES)]
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        tensors = [
            RawTensor(name, entry.dtype, entry.shape, data[entry.begin : entry.end])
            for name, entry in header.tensors.items()
            if name in names
        ]
    write_checkpoint(target, {**header.document, **changes}, tensors)


def tensor_of(header: CheckpointHeader, name: str) -> RawTensor:
    """One tensor of a file, with its bytes."""
    entry = header.tensors[name]
    with header.path.open("rb") as file:
        file.seek(entry.begin)
        return RawTensor(name, entry.dtype, entry.shape, file.read(entry.size_bytes))


def verify_tensors(header: CheckpointHeader) -> list[str]:
    """Names of the tensors whose bytes are not those that were written; [] when all are."""
    wanted = header.document.get("hashes", {}).get("tensors", {})
    wrong = sorted(set(wanted) ^ set(header.tensors))
    with (
        header.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as view,
    ):
        for name, entry in header.tensors.items():
            with view[entry.begin : entry.end] as part:
                found = _tensor_hash(name, entry.dtype, entry.shape, part)
            if name in wanted and wanted[name] != found:
                wrong.append(name)
    return sorted(wrong)


def model_hash(hashes: Mapping[str, str]) -> str:
    """One SHA-256 for all ``model.*`` tensors, from the hashes of the single ones."""
    whole = hashlib.sha256()
    for name in sorted(hashes):
        if name.startswith("model."):
            whole.update(f"{name}={hashes[name]}\n".encode())
    return whole.hexdigest()


def plain_json(document: object) -> str:
    """``document`` as strict JSON: what is not finite becomes null."""
    return json.dumps(_finite(document), separators=(",", ":"), allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _tensor_hash(name: str, dtype: str, shape: Sequence[int], data: bytes | memoryview) -> str:
    digest = hashlib.sha256(f"{name} {dtype} {list(shape)}\n".encode())
    digest.update(data)
    return digest.hexdigest()


def find_checkpoint(path: Path) -> tuple[Path, str]:
    """The checkpoint that ``path`` means, and a sentence that says which was taken and why.

    ``path`` is a checkpoint, a run's folder (its selected best, else its last), a run's
    ``checkpoints`` folder, or an optimised model (its folder, or a file in it). Raises
    CheckpointError where there is none, or where several folds leave the choice open.
    """
    deployed = find_deployed(path)
    if deployed is not None:
        return deployed.file, deployed.said
    if path.is_file():
        return path, f"{path}, as named"
    if not path.is_dir():
        raise _missing(path)
    inner = path / CHECKPOINTS_FOLDER
    folder = inner if inner.is_dir() else path
    best, last = folder / BEST_NAME, folder / LAST_NAME
    if best.is_file():
        return best, f"{best}, {_selected(best)}"
    if last.is_file():
        return last, f"{last}, the last one: no best was selected in {path} yet"
    folds = sorted(child.name for child in path.glob("fold_*") if child.is_dir())
    if folds:
        raise CheckpointError(
            "This run has several folds, each with a model of its own.",
            where=str(path),
            met=", ".join(folds),
            wanted="one checkpoint",
            how=f"name one of them, for example {path / folds[0]}",
        )
    found = sorted(child.name for child in path.glob("*" + SUFFIX))
    raise CheckpointError(
        "There is no selected checkpoint in this folder.",
        where=str(path),
        met=", ".join(found) if found else "no .safetensors file",
        wanted=f"a run's folder with {CHECKPOINTS_FOLDER}/{BEST_NAME}, or a checkpoint file",
        how="name the file itself." if found else "",
    )


def _selected(best: Path) -> str:
    document = read_header(best).document
    metrics = document.get("metrics") or {}
    primary = metrics.get("primary")
    value = (metrics.get("selection") or {}).get(primary)
    figure = (
        f", {primary} {value:.3f}: selection set, optimistic" if isinstance(value, float) else ""
    )
    epoch = document.get("epoch")
    return f"the selected best of its run (epoch {epoch}, counted from 0{figure})"


def _missing(path: Path) -> CheckpointError:
    parent = path.parent
    siblings = [child.name for child in parent.iterdir()] if parent.is_dir() else []
    near = nearest_name(path.name, siblings)
    return CheckpointError(
        "There is no such checkpoint.",
        where=str(path),
        wanted="a checkpoint file or a run's folder",
        nearest=str(parent / near) if near else "",
        how="'medtool runs' lists the runs below a folder.",
    )


def _not_a_checkpoint(path: Path, met: str, start: bytes) -> CheckpointError:
    # A zip archive or a pickle of protocol 2 and later: what torch.save writes.
    pickled = start.startswith((ZIP_START, b"\x80\x02", b"\x80\x04", b"\x80\x05"))
    return CheckpointError(
        "This file is no checkpoint.",
        where=str(path),
        met="a pickled file of PyTorch or a zip archive, which could run code" if pickled else met,
        wanted="a .safetensors file that 'medtool train' wrote",
    )


def _truncated(path: Path, size_bytes: int, wanted_bytes: int) -> CheckpointError:
    return CheckpointError(
        "This checkpoint is truncated.",
        where=str(path),
        met=f"{size_bytes} bytes",
        wanted=f"at least {wanted_bytes} bytes",
        how="copy it again from where it came from.",
    )


def _damaged(path: Path, met: str) -> CheckpointError:
    return CheckpointError(
        "The header of this checkpoint is damaged.",
        where=str(path),
        met=met,
        how="copy it again from where it came from.",
    )
