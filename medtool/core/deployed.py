"""Optimised models: the folder that ``medtool optimize`` writes, found, checked and written.

Beside model files of several engines lie ``optimize.json``, which says what each is and holds its
SHA-256, and ``document.safetensors``: the head of the checkpoint that they were made of, with the
probe but without weights. Only the standard library is needed here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from medtool.core.errors import CheckpointError, UnknownNameError
from medtool.core.files import file_sha256, replace_text
from medtool.core.names import nearest_name

OPTIMIZE_FILE = "optimize.json"
DOCUMENT_FILE = "document.safetensors"
MODEL_CARD = "model-card.json"
DEPLOYED_FORMAT = 1
# The model as ``optimize`` exports it first: whole, in float32.
FLOAT_FILE = "model.onnx"

CHECKPOINT_ENDING = ".safetensors"
COPY_AGAIN = "copy the whole folder again from where it came from."


@dataclass(frozen=True)
class Deployed:
    """One model file of an optimised folder; ``document`` is its optimize.json."""

    folder: Path
    document: Mapping[str, Any]
    file: Path
    engine: str

    @property
    def entry(self) -> Mapping[str, Any]:
        """What optimize.json says of the file."""
        entry: Mapping[str, Any] = self.document["files"][self.file.name]
        return entry

    @property
    def arithmetic(self) -> str:
        """float32, int8, ..."""
        return str(self.entry.get("arithmetic", ""))

    @property
    def head(self) -> Path:
        """The file with the checkpoint's document and the probe."""
        return self.folder / DOCUMENT_FILE

    @property
    def said(self) -> str:
        """Which file answers and how, in a few words."""
        return self.said_by(self.engine)

    def said_by(self, engine: str) -> str:
        """The same, where ``engine`` runs the file."""
        return f"{self.file} ({self.arithmetic}, by {engine})"

    def beside(self, name: str) -> Deployed:
        """Another model file of the folder. Raises UnknownNameError."""
        files = self.document["files"]
        if name not in files:
            raise UnknownNameError(
                "There is no such file in this optimised model.",
                where=str(self.folder),
                met=name,
                wanted=", ".join(files),
                nearest=nearest_name(name, files),
            )
        return replace(self, file=self.folder / name, engine=str(files[name]["engine"]))


def find_deployed(path: Path) -> Deployed | None:
    """The optimised model that ``path`` means; None where it is something else.

    ``path`` is the folder (its default file), a model file in it, or one of the files that describe
    it. Raises CheckpointError where optimize.json is damaged or of a newer medtool.
    """
    folder = path if path.is_dir() else path.parent
    if not path.exists() or not (folder / OPTIMIZE_FILE).is_file():
        return None
    document = _read(folder / OPTIMIZE_FILE)
    whole = path.is_dir() or path.name in (OPTIMIZE_FILE, DOCUMENT_FILE, MODEL_CARD)
    name = str(document["default"]) if whole else path.name
    if name not in document["files"] or name.endswith(CHECKPOINT_ENDING):
        # A pruned checkpoint beside its files is a checkpoint like any other.
        return None
    return Deployed(folder, document, folder / name, str(document["files"][name]["engine"]))


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(file, f"{type(error).__name__}: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("format"), int):
        raise _damaged(file, "no format is named")
    if document["format"] > DEPLOYED_FORMAT:
        raise CheckpointError(
            "This model was optimised by a newer medtool.",
            where=str(file),
            met=f"format {document['format']}",
            wanted=f"format {DEPLOYED_FORMAT} or older",
            how="install a newer medtool",
        )
    files = document.get("files")
    if not isinstance(files, dict) or document.get("default") not in files:
        raise _damaged(file, "the default file is not among the files")
    for name, entry in files.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("engine"), str):
            raise _damaged(file, f"'{name}' names no engine")
        external = entry.get("external") or {}
        if not isinstance(external, dict) or not all(map(_inside, (name, *external))):
            raise _damaged(file, f"'{name}' leads out of the folder")
    return document


def _inside(name: str) -> bool:
    """Whether a file's name cannot lead out of its folder."""
    return PurePath(name).name == name and "\\" not in name and name not in ("", ".", "..")


def _damaged(file: Path, met: str) -> CheckpointError:
    return CheckpointError(
        f"The {OPTIMIZE_FILE} of this model is damaged.", where=str(file), met=met, how=COPY_AGAIN
    )


def damaged_files(deployed: Deployed) -> dict[str, str]:
    """Of the model file, what lies outside it and the document those that are not as they were
    made: name -> what was met; {} when all are.
    """
    wanted: dict[str, str] = {
        deployed.file.name: str(deployed.entry.get("sha256", "")),
        **{str(name): str(value) for name, value in (deployed.entry.get("external") or {}).items()},
        DOCUMENT_FILE: str(deployed.document.get("document_sha256", "")),
    }
    found = {}
    for name, sha256 in wanted.items():
        met = _hash_of(deployed.folder / name)
        if met != sha256:
            found[name] = f"SHA-256 {met[:16]}..., not {sha256[:16]}..." if met else "no such file"
    return found


def hashes_of(file: Path) -> dict[str, Any]:
    """What records state of a model file: its ``sha256``, as optimize.json has it too, and where
    weights lie outside it ``external``, theirs by name. "" is the hash of what is not there.
    """
    deployed = find_deployed(file)
    names = (deployed.entry.get("external") or {}) if deployed is not None else {}
    own = {name: _hash_of(file.with_name(str(name))) for name in names}
    return {"sha256": _hash_of(file), **({"external": own} if own else {})}


def _hash_of(file: Path) -> str:
    return file_sha256(file) if file.is_file() else ""


def one_hash(hashes: Mapping[str, Any]) -> str:
    """One word for ``hashes_of`` a model: another where only weights outside its file differ."""
    parts = [str(hashes["sha256"]), *map(str, hashes.get("external", {}).values())]
    return parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()


def same_model(stated: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether a record states the model of ``found``; earlier ones do not state ``external``."""
    external = found.get("external")
    beside = stated.get("external", external)
    return bool(stated.get("sha256") == found["sha256"] and beside == external)


def verify_deployed(deployed: Deployed) -> None:
    """Raises CheckpointError that names the file whose bytes are not those that were made."""
    for name, met in damaged_files(deployed).items():
        raise CheckpointError(
            "A file of this optimised model is not the one that was made.",
            where=str(deployed.folder / name),
            met=met,
            wanted=f"the file whose SHA-256 stands in {OPTIMIZE_FILE}",
            how=COPY_AGAIN,
        )


def write_deployed(folder: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``folder``'s optimize.json, when all that it names is there; gives it as written.

    ``format``, and the SHA-256 of document.safetensors, are added.
    """
    complete = {
        **document,
        "format": DEPLOYED_FORMAT,
        "document_sha256": file_sha256(folder / DOCUMENT_FILE),
    }
    text = json.dumps(complete, indent=2, allow_nan=False)
    replace_text(folder / OPTIMIZE_FILE, text + "\n")
    return complete
