"""What is measured of each case for the plan: once, in several processes, kept on the disk.

Of a case only its fingerprint (some ten thousand numbers) comes back; a worker holds one case.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medtool.core.errors import CaseRefused, InputError, MachineError
from medtool.core.files import replacing
from medtool.core.progress import Reporter, Silent
from medtool.core.records import Case, Prepared
from medtool.data.cache import case_stem
from medtool.data.case_file import DamagedFile, read_case_file, to_bytes
from medtool.data.estimate import case_weight
from medtool.data.fingerprint import CaseFingerprint, ForegroundValues, case_fingerprint
from medtool.data.orientation import turn_to
from medtool.data.pool import WorkerPool
from medtool.data.preparation import DEFAULT_CASE_TIMEOUT_S, workers_for
from medtool.data.worker import Answer, unforeseen
from medtool.tasks.segmentation_reading import read_case

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.tasks.segmentation_settings import SegmentationDataSection

# With fewer voxels to read (some ten seconds) processes would take longer to start than they save.
WORTH_WORKERS_VOXELS = 400_000_000
HASH_BYTES = 4


def fingerprints(
    task: Task,
    data: SegmentationDataSection,
    cases: Sequence[Case],
    folder: Path,
    *,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> Iterator[CaseFingerprint]:
    """Those of all cases that can be read, in their order; kept in ``folder``.

    What cannot be read is told when it is prepared. ``workers`` 0 stays in this process, None takes
    what cores and memory allow where there is enough to do. Raises InputError where no case can be
    read, MachineError.
    """
    measured = 0
    with (reporter or Silent()).progress("Measuring", len(cases)) as advance:
        for case, path in _measured(task, data, cases, folder, workers):
            advance(1, case.case_id)
            found = _kept(path)
            if found is not None:
                measured += 1
                yield found
    if not measured:
        raise InputError(
            "No case can be read to plan from.",
            met=f"{len(cases)} cases with a mask",
            how="'medtool check' says of each case what is wrong.",
        )


def _measured(
    task: Task,
    data: SegmentationDataSection,
    cases: Sequence[Case],
    folder: Path,
    workers: int | None,
) -> Iterator[tuple[Case, Path]]:
    """Each case once its file is there, if it can be."""
    # The same files measured as other channels, or turned, are another fingerprint.
    asked = json.dumps([data.channels, data.preparation.orientation])
    place = folder / hashlib.blake2b(asked.encode(), digest_size=HASH_BYTES).hexdigest()
    paths = {case.case_id: place / f"{case_stem(case)}.b2" for case in cases}
    missing = [case for case in cases if _kept(paths[case.case_id]) is None]
    work = sum(case_weight(case).work for case in missing)
    count = workers_for(missing, workers) if work > WORTH_WORKERS_VOXELS else 0
    known = {case.case_id for case in missing}
    if count == 0:
        for case in cases:
            if case.case_id in known:
                measure(data, place, case)
            yield case, paths[case.case_id]
        return
    job = partial(measure, data, place)
    pool = WorkerPool(task, None, job, workers=count, timeout_s=DEFAULT_CASE_TIMEOUT_S)
    answers = pool.run(
        cases,
        ahead=len(cases),
        present=lambda case: None if case.case_id in known else Answer("ok", reused=True),
    )
    for case, _ in answers:
        yield case, paths[case.case_id]


def measure(data: SegmentationDataSection, folder: Path, case: Case) -> Answer:
    """Measure one case into ``folder``; may run in a worker."""
    try:
        read = read_case(case, data)
        if read.label is None:
            return Answer("refused", "mask-missing", "The case has no mask.")
        turn = turn_to(data.preparation.orientation, read.grid)
        spacing_mm = [read.grid.spacing_mm[::-1][axis] for axis in turn.axes]
        found = case_fingerprint(turn.there(read.image), turn.there(read.label), spacing_mm)
    except CaseRefused as refusal:
        return Answer("refused", refusal.code, refusal.what)
    except MachineError:
        raise
    except Exception as error:  # noqa: BLE001 - one case must not end the others
        return Answer("failed", *unforeseen(error))
    with replacing(folder / f"{case_stem(case)}.b2") as file:
        file.write(b"".join(to_bytes(_as_prepared(case.case_id, found))))
    return Answer("ok")


def _as_prepared(case_id: str, found: CaseFingerprint) -> Prepared:
    facts = {
        "size_vox": list(found.size_vox),
        "spacing_mm": list(found.spacing_mm),
        "relative_size": found.relative_size,
        "channels": [
            {name: value for name, value in vars(channel).items() if name != "quantiles"}
            for channel in found.foreground
        ],
    }
    arrays = {f"quantiles_{n}": channel.quantiles for n, channel in enumerate(found.foreground)}
    return Prepared(case_id, arrays, facts=facts)


def _kept(path: Path) -> CaseFingerprint | None:
    if not path.is_file():
        return None
    try:
        stored = read_case_file(path)
    except DamagedFile:
        return None
    facts = stored.facts
    channels = tuple(
        ForegroundValues(quantiles=np.asarray(stored.arrays[f"quantiles_{n}"]), **channel)
        for n, channel in enumerate(facts["channels"])
    )
    z, y, x = facts["size_vox"]
    dz, dy, dx = facts["spacing_mm"]
    return CaseFingerprint((z, y, x), (dz, dy, dx), facts["relative_size"], channels)
