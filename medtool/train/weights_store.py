"""Where fetched weights lie, and the record that lies beside them.

``~/.medtool/weights/<owner>--<repository>/<revision asked for>/`` holds the file and, beside it,
``<file>.json``: what was asked for, the commit it resolved to, hashes, what is known of the
licence. torch is not needed here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from medtool.config.weights import WeightsSection
from medtool.core.errors import CheckpointError
from medtool.core.names import safe_file_stem

RECORD_SUFFIX = ".json"


@dataclass(frozen=True)
class WeightsRecord:
    """What is known of one fetched file. ``licence`` is the hub's word, ``licence_note`` ours."""

    repository: str
    file: str
    revision: str
    resolved_revision: str
    licence: str
    licence_note: str
    file_sha256: str
    tensors_sha256: str
    size_bytes: int
    fetched_from: str

    def licence_text(self) -> str:
        """Both words on the licence in one line."""
        said = f"hub: {self.licence or 'none stated'}"
        return f"{said}; {self.licence_note}" if self.licence_note else said

    def as_text(self) -> str:
        """The record as JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"


def weights_folder(weights: WeightsSection) -> Path:
    """The folder of the weights that the preset names."""
    repository = "--".join(safe_file_stem(part) for part in weights.repository.split("/"))
    return weights.folder.expanduser() / repository / safe_file_stem(weights.revision)


def weights_file(weights: WeightsSection) -> Path:
    """Where the file that the preset names is kept; its ending says how it is read."""
    name = Path(weights.file)
    return weights_folder(weights) / (safe_file_stem(name.stem) + name.suffix)


def record_file(file: Path) -> Path:
    """Where the record of a file of weights is kept."""
    return file.with_name(file.name + RECORD_SUFFIX)


def fetched_weights(weights: WeightsSection) -> tuple[Path, WeightsRecord] | None:
    """File and record of the weights that the preset names, or None where they were not fetched.

    Raises CheckpointError where the record is damaged.
    """
    if not weights.repository:
        return None
    file = weights_file(weights)
    record = record_file(file)
    if not file.is_file() or not record.is_file():
        return None
    return file, read_record(record.read_text(encoding="utf-8"), str(record))


def read_record(text: str, where: str) -> WeightsRecord:
    """The record that ``text`` holds; raises CheckpointError."""
    try:
        document = json.loads(text)
        record = WeightsRecord(**document)
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            "The record of fetched weights is damaged.",
            where=where,
            met=str(error),
            how="fetch the weights again with --force.",
        ) from error
    if not all(isinstance(value, str | int) for value in asdict(record).values()):
        raise CheckpointError("The record of fetched weights is damaged.", where=where)
    return record
