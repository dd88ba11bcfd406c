"""Getting weights: from the hub, from a file of this machine, from a bundle; and making bundles.

The only code of medtool that opens a connection, and only when it is called.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from medtool.config.weights import WeightsSection
from medtool.core.errors import CheckpointError, MachineError, UnknownNameError, UsageError
from medtool.core.files import TEMPORARY_PREFIX, cannot_write, file_sha256, replace_text, replacing
from medtool.core.names import nearest_name
from medtool.core.progress import Reporter, Silent
from medtool.train.weights import read_tensors, tensors_sha256
from medtool.train.weights_store import (
    WeightsRecord,
    read_record,
    record_file,
    weights_file,
)

MEGABYTE = 1_000_000
COPY_CHUNK_BYTES = 1024**2
# Larger than any backbone of timm; a bundle that claims more is none of ours.
LARGEST_WEIGHTS_BYTES = 20 * 1024**3
LARGEST_RECORD_BYTES = 100_000
# The two members of a bundle.
BUNDLED_RECORD = "weights.json"
BUNDLED_FILE = "weights"
NO_NETWORK = (
    "on a machine with network run 'medtool fetch TASK --bundle FILE', carry FILE here and run "
    "the same command."
)


def fetch_from_hub(
    weights: WeightsSection, *, endpoint: str | None = None, reporter: Reporter | None = None
) -> WeightsRecord:
    """Download what the preset names and keep it with its record.

    ``endpoint`` is another hub than the usual one. Raises UsageError (no such repository,
    revision or file, or not allowed), MachineError (no network, disk full).
    """
    from huggingface_hub import HfApi, hf_hub_download

    reporter = reporter or Silent()
    with _hub_refusals(weights):
        api = HfApi(endpoint=endpoint, library_name="medtool")
        info = api.model_info(weights.repository, revision=weights.revision, files_metadata=True)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
    if weights.file not in sizes:
        raise UnknownNameError(
            f"The repository has no file '{weights.file}'.",
            where=f"{weights.repository} at {weights.revision}",
            met=", ".join(sorted(sizes)[:10]) or "no files",
            nearest=nearest_name(weights.file, sizes),
            how="change model.weights.file.",
        )
    licence = str(getattr(info.card_data, "license", None) or "")
    megabytes = -(-sizes[weights.file] // MEGABYTE)
    reporter.say(f"Fetching {weights.file} of {weights.repository} at {info.sha}, {megabytes} MB.")
    reporter.say(f"Licence, says the hub: {licence or 'none stated'}. {weights.licence}".rstrip())
    place = weights_file(weights)
    with _scratch_beside(place) as folder:
        with (
            reporter.progress(f"fetching {weights.file} (MB)", megabytes) as advance,
            _hub_refusals(weights),
        ):
            fetched = hf_hub_download(
                weights.repository,
                weights.file,
                revision=info.sha,
                local_dir=folder,
                endpoint=endpoint,
                library_name="medtool",
                tqdm_class=_bar_class(advance),
            )
        record = WeightsRecord(
            repository=weights.repository,
            file=weights.file,
            revision=weights.revision,
            resolved_revision=str(info.sha),
            licence=licence,
            licence_note=weights.licence,
            file_sha256="",
            tensors_sha256="",
            size_bytes=0,
            fetched_from="hub",
        )
        return _keep(Path(fetched), place, record)


def take_local_file(weights: WeightsSection, file: Path) -> WeightsRecord:
    """Keep a file of this machine as the weights that the preset names, with its hashes.

    Raises UsageError where there is no such file or it is of another kind, CheckpointError where
    it holds no tensors, MachineError where the disk is full.
    """
    if not file.is_file():
        raise UsageError("There is no such file.", where=str(file), wanted="a file of weights")
    place = weights_file(weights)
    record = WeightsRecord(
        repository=weights.repository,
        file=weights.file,
        revision=weights.revision,
        resolved_revision="",
        licence="",
        licence_note=weights.licence,
        file_sha256="",
        tensors_sha256="",
        size_bytes=0,
        fetched_from="a file of this machine",
    )
    with _scratch_beside(place) as folder:
        # Read under its own ending, kept under the name that the preset gives.
        copied = folder / ("copied" + file.suffix)
        shutil.copyfile(file, copied)
        if copied.suffix.lower() != place.suffix.lower():
            raise UsageError(
                "The file is of another kind than the preset names.",
                where=str(file),
                met=file.suffix,
                wanted=place.suffix,
                how="name it in the preset: model.weights.path.",
            )
        return _keep(copied, place, record)


def write_bundle(weights: WeightsSection, record: WeightsRecord, bundle: Path) -> None:
    """Pack the fetched file and its record into one archive."""
    with (
        replacing(bundle) as target,
        zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive,
    ):
        archive.writestr(BUNDLED_RECORD, record.as_text())
        archive.write(weights_file(weights), BUNDLED_FILE)


def read_bundle(weights: WeightsSection, bundle: Path) -> WeightsRecord:
    """Keep what a bundle holds, if it is what the preset names and whole.

    Raises CheckpointError where it is not.
    """
    place = weights_file(weights)
    try:
        with zipfile.ZipFile(bundle) as archive, _scratch_beside(place) as folder:
            record = _bundled_record(archive, bundle)
            named = (record.repository, record.file, record.revision)
            if named != (weights.repository, weights.file, weights.revision):
                raise CheckpointError(
                    "The bundle holds other weights than the preset names.",
                    where=str(bundle),
                    met=f"{record.file} of {record.repository} at {record.revision}",
                    wanted=f"{weights.file} of {weights.repository} at {weights.revision}",
                )
            copied = folder / ("copied" + place.suffix)
            with archive.open(BUNDLED_FILE) as source, copied.open("wb") as target:
                _copy_bounded(source, target, record.size_bytes)
            kept = _keep(copied, place, record)
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
        raise CheckpointError(
            "This is no bundle of weights.",
            where=str(bundle),
            met=str(error),
            wanted="a file that 'medtool fetch TASK --bundle FILE' wrote",
        ) from error
    return kept


def _bundled_record(archive: zipfile.ZipFile, bundle: Path) -> WeightsRecord:
    with archive.open(BUNDLED_RECORD) as member:
        text = member.read(LARGEST_RECORD_BYTES + 1)
    record = read_record(text.decode(errors="replace")[:LARGEST_RECORD_BYTES], str(bundle))
    if not 0 < record.size_bytes <= LARGEST_WEIGHTS_BYTES:
        raise CheckpointError(
            "The bundle claims a size that no weights have.",
            where=str(bundle),
            met=f"{record.size_bytes} bytes",
        )
    return record


def _copy_bounded(source: IO[bytes], target: IO[bytes], most: int) -> None:
    """Copy no more than ``most`` bytes: what the archive says of sizes is not believed."""
    left = most
    while chunk := source.read(min(COPY_CHUNK_BYTES, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise CheckpointError("The bundle holds more than its record says.")
        target.write(chunk)


def _keep(file: Path, place: Path, record: WeightsRecord) -> WeightsRecord:
    """Check that ``file`` holds tensors (and those of the record), then put it in its place."""
    found = replace(
        record,
        file_sha256=file_sha256(file),
        tensors_sha256=tensors_sha256(read_tensors(file)),
        size_bytes=file.stat().st_size,
    )
    if record.file_sha256 not in ("", found.file_sha256):
        raise CheckpointError(
            "The weights were changed on the way.",
            where=record.file,
            met=f"sha256 {found.file_sha256}",
            wanted=record.file_sha256,
        )
    file.replace(place)
    replace_text(record_file(place), found.as_text())
    return found


@contextmanager
def _scratch_beside(place: Path) -> Iterator[Path]:
    """A folder on the disk of ``place`` that is gone at the end; a full disk is a refusal."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=place.parent) as name:
            yield Path(name)
    except OSError as error:
        raise cannot_write(place, error) from error


@contextmanager
def _hub_refusals(weights: WeightsSection) -> Iterator[None]:
    """The hub's errors as refusals that say how to go on."""
    from huggingface_hub import errors

    where = f"{weights.file} of {weights.repository} at {weights.revision}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise UsageError(
            "The hub gives this repository only to those who asked for it.",
            where=where,
            how="ask on its page, log in with 'hf auth login', and fetch again.",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UsageError(
            "The hub has no such repository or revision, or does not show it to you.",
            where=where,
            how="check model.weights in the preset, or give a file: --file PATH.",
        ) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise _no_hub(where, "no connection") from error
    except (errors.HfHubHTTPError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        raise _no_hub(
            where, f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        ) from error
    except errors.HFValidationError as error:
        raise UsageError(
            "This is no name of a repository on the hub.",
            where="model.weights.repository",
            met=weights.repository,
            wanted="owner/name",
        ) from error


def _no_hub(where: str, met: str) -> MachineError:
    return MachineError("The hub cannot be reached.", where=where, met=met, how=NO_NETWORK)


def _bar_class(advance: Callable[[int], None]) -> Any:
    """A progress bar for the hub's library that prints nothing and tells the reporter."""
    from huggingface_hub import utils

    base: Any = utils.tqdm  # type: ignore[attr-defined]

    class Bar(base):  # type: ignore[misc]
        def __init__(self, *values: Any, **named: Any) -> None:
            super().__init__(*values, **{**named, "disable": True})
            self.bytes_left = 0

        def update(self, n: float | None = 1) -> None:
            whole, self.bytes_left = divmod(self.bytes_left + int(n or 0), MEGABYTE)
            if whole:
                advance(whole)

    return Bar
