"""Several checkpoints as one file: members of one model, such as the folds of a run.

The tensors of member ``fold_0`` are ``model.fold_0.*`` and ``probe.fold_0.*``; the document's
``members`` hold each one's name and its own document. Only the standard library is needed here.
"""

from __future__ import annotations

import hashlib
import mmap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from medtool.core.checkpoint import (
    SLIM_PREFIXES,
    CheckpointHeader,
    RawTensor,
    read_header,
    write_checkpoint,
)
from medtool.core.errors import CheckpointError

MEMBERS = "members"
# What the members of a file say alike, taken from the first.
SHARED_KEYS = (
    *("task", "preset", "preset_name", "layers", "groups", "stages", "weights", "versions"),
    *("created_by", "selection", "imported", "companions"),
)
# Of a member's document what only the whole file can say.
WHOLE_KEYS = ("hashes", "format")


@dataclass(frozen=True)
class Member:
    """One model of several in a file; its ``document`` is what its own checkpoint said."""

    name: str
    document: Mapping[str, Any]


def members_of(header: CheckpointHeader) -> tuple[Member, ...]:
    """The members of a file; none where it is one model."""
    return tuple(
        Member(str(entry["name"]), entry["document"]) for entry in header.document.get(MEMBERS, ())
    )


def member_prefix(prefix: str, name: str) -> str:
    """Where the tensors of a member begin: ``model.`` becomes ``model.fold_0.``."""
    return f"{prefix}{name}." if name else prefix


def write_ensemble(
    target: Path,
    members: Mapping[str, Path],
    changes: Mapping[str, Any] | None = None,
    *,
    read: Callable[[Path], CheckpointHeader] = read_header,
) -> dict[str, Any]:
    """Write the checkpoints of ``members``, by name, as one file; gives its document.

    What only training needs is left out. ``changes`` are added to the document; ``read`` gives the
    head of each member. Raises
    CheckpointError where members are of different tasks, or are ensembles themselves;
    MachineError where the disk is full.
    """
    headers = {name: read(path) for name, path in members.items()}
    document = {**joined_document(headers), **(changes or {})}
    with ExitStack() as stack:
        tensors = [
            tensor for name, header in headers.items() for tensor in _tensors(stack, name, header)
        ]
        return write_checkpoint(target, document, tensors)


def _tensors(stack: ExitStack, name: str, header: CheckpointHeader) -> list[RawTensor]:
    """Views of the tensors that answer, under the member's name; closed with the stack."""
    file = stack.enter_context(header.path.open("rb"))
    data = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    whole = stack.enter_context(memoryview(data))
    kept = []
    for tensor, entry in header.tensors.items():
        prefix = next((start for start in SLIM_PREFIXES if tensor.startswith(start)), None)
        if prefix is not None:
            view = stack.enter_context(whole[entry.begin : entry.end])
            own = member_prefix(prefix, name) + tensor.removeprefix(prefix)
            kept.append(RawTensor(own, entry.dtype, entry.shape, view))
    return kept


def joined_document(headers: Mapping[str, CheckpointHeader]) -> dict[str, Any]:
    """What the members say together. Raises CheckpointError where they do not go together."""
    documents = {name: header.document for name, header in headers.items()}
    tasks = {str(document.get("task")): name for name, document in documents.items()}
    if len(tasks) != 1:
        raise CheckpointError(
            "Models of different tasks cannot answer together.",
            where=str(next(iter(headers.values())).path),
            met=", ".join(f"{name}: {task}" for task, name in tasks.items()),
            wanted="models of one task",
        )
    for name, document in documents.items():
        if MEMBERS in document:
            raise CheckpointError(
                "A member of several models is itself several.",
                where=str(headers[name].path),
                wanted="checkpoints of one model each",
            )
    first, *_ = documents.values()
    every = list(documents.values())
    return {
        **{key: first[key] for key in SHARED_KEYS if key in first},
        MEMBERS: [
            {
                "name": name,
                "model_sha256": (own.get("hashes") or {}).get("model", ""),
                "document": {k: v for k, v in own.items() if k not in WHOLE_KEYS},
            }
            for name, own in documents.items()
        ],
        "metrics": {"primary": (first.get("metrics") or {}).get("primary"), "selection": {}},
        **_threshold(every),
        **_postprocessing(every),
        "training_range": joined_ranges([one.get("training_range") or {} for one in every]),
        "fingerprint": _fingerprint(documents),
        "patients": joined_patients([one.get("patients") or {} for one in every]),
        "synthetic": any(one.get("synthetic") for one in every),
    }


def _threshold(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    known = [float(one["threshold"]) for one in documents if one.get("threshold") is not None]
    if not known:
        return {}
    rule = f"mean of the thresholds of {len(known)} members"
    return {"threshold": fmean(known), "threshold_rule": rule}


def _postprocessing(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Steps that more than half of the members decided on, in the order in which they come."""
    listed = [(one.get("postprocessing") or {}).get("steps", ()) for one in documents]
    votes = Counter(_key(step) for steps in listed for step in steps)
    kept = {_key(step): step for steps in listed for step in steps}
    steps = [step for key, step in kept.items() if 2 * votes[key] > len(documents)]
    return {"postprocessing": {"steps": steps}} if steps else {}


def _key(step: Mapping[str, Any]) -> str:
    return repr(sorted(step.items()))


def joined_patients(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One table for patients that any member saw; each keeps the salt of its own."""
    known = [dict(table) for table in tables if table.get("hashes")]
    return {"tables": known, "hashes": [h for table in known for h in table["hashes"]]}


def _fingerprint(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    whole = hashlib.sha256()
    parts: dict[str, Any] = {}
    for name, document in documents.items():
        own = document.get("fingerprint") or {}
        whole.update(f"{name}={own.get('sha256', '')}\n".encode())
        parts |= {f"{name} {part}": counts for part, counts in (own.get("parts") or {}).items()}
    return {"sha256": whole.hexdigest(), "parts": parts}


def joined_ranges(ranges: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What training cases were like over all members: of counts the largest, of ends the outer."""
    names = dict.fromkeys(name for one in ranges for name in one)
    return {name: _joined([one[name] for one in ranges if name in one]) for name in names}


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: max(value.get(key, 0) for value in values) for key in keys}
    same = all(isinstance(value, list) and len(value) == len(first) for value in values)
    if not (isinstance(first, list) and first and same):
        return max(values) if all(isinstance(v, int | float) for v in values) else first
    if isinstance(first[0], list):
        return [_joined([value[axis] for value in values]) for axis in range(len(first))]
    columns = [list(column) for column in zip(*values, strict=True)]
    inner = [fmean(column) for column in columns[1:-1]]
    return [min(columns[0]), *inner, max(columns[-1])] if len(columns) > 1 else [min(columns[0])]


def member_header(header: CheckpointHeader, member: Member) -> CheckpointHeader:
    """The head of the file as that of one member."""
    return replace(header, document=member.document)
