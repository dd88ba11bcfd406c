"""The records that travel from a folder of scans to a report.

Each is made in one place, complete, and never changed (``dataclasses.replace`` makes another).
Rows, labels and errors are per case (one study); splits, bootstrap and leakage per patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.geometry import Grid

Severity = Literal["note", "warning", "refusal"]
Part = Literal["train", "selection", "test"]
CaseStatus = Literal["ok", "refused", "failed"]

# What stands beside every number of the patients that chose the checkpoint or the threshold.
SELECTION_OPTIMISTIC = "selection set, optimistic"


@dataclass(frozen=True)
class Finding:
    """One thing that was seen, repaired, dropped or refused, with a stable reason code."""

    code: str
    message: str
    severity: Severity = "note"


@dataclass(frozen=True)
class Skipped:
    """A file that is not part of any series, and why."""

    file: Path
    code: str
    why: str


@dataclass(frozen=True)
class Source:
    """What the user pointed at: where cases and references are to be found."""

    paths: tuple[Path, ...]
    labels: Path | None = None
    # Series UID (or the row key of series.csv) -> whether a person says to use it.
    series_overrides: Mapping[str, bool] = field(default_factory=dict)
    overrides_from: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a patient: days from the scan to the event, or to the end of follow-up.

    ``stratum`` names whom the patient may be compared with, such as those of one centre; "" where
    everybody is.
    """

    time_days: float
    event: bool
    stratum: str = ""


@dataclass(frozen=True)
class Case:
    """One study (imaging session) of one patient.

    ``inputs`` maps a channel ("ct") to a ``medtool.dicom.series.Series`` or a path. ``label`` is
    None where no reference is known. ``facts`` are plain values for tables (scanner, kernel,
    thickness_mm, slices, ...), never names of patients.
    """

    case_id: str
    patient_id: str
    study_uid: str
    inputs: Mapping[str, Any]
    accession: str = ""
    study_date: str = ""
    folder: str = ""
    label: float | None = None
    outcome: Outcome | None = None
    references: Mapping[str, str] = field(default_factory=dict)
    covariates: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class RefusedStudy:
    """A study without any usable series: a row of every table; ``code`` are all, by ";"."""

    case_id: str
    patient_id: str
    study_uid: str
    code: str
    message: str


@dataclass(frozen=True)
class Cohort:
    """Every case that was found, and everything that was not usable, with the reason.

    ``intake`` is the document of ``check --json``: {"series": [...], "skipped": [...]}.
    """

    cases: tuple[Case, ...]
    intake: Mapping[str, Any]
    findings: tuple[Finding, ...] = ()
    refused: tuple[RefusedStudy, ...] = ()


@dataclass(frozen=True)
class CheckedCase:
    """What was found in the pixels of one case, and what of it is compared with other cases.

    ``image_hash`` is "" where no image could be read, ``orientation`` names the axes of a volume
    (LPS), "" for a picture, or where that is of no interest. ``is_picture`` where the size of a
    pixel is not known, and the task takes that for another kind of image.
    """

    case_id: str
    patient_id: str
    findings: tuple[Finding, ...]
    image_hash: str = ""
    orientation: str = ""
    is_picture: bool = False


@dataclass(frozen=True)
class Prepared:
    """One case, ready for the network but for augmentation and normalisation.

    ``elements`` has one row per slice (or whatever the case is made of) of the image that was
    read: provenance, measurements, whether it is used and why not.
    """

    case_id: str
    arrays: Mapping[str, NDArray[Any]]
    grids: Mapping[str, Grid] = field(default_factory=dict)
    elements: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class ExampleKey:
    """What a data set is indexed by, so that randomness needs no global stream.

    Every random draw for an example derives from (seed, epoch, case id); ``copy`` tells apart
    several draws of one case in one epoch.
    """

    seed: int
    epoch: int
    index: int
    copy: int = 0


@dataclass(frozen=True)
class Batch:
    """Tensors of one step and the cases they came from."""

    tensors: Mapping[str, Any]
    cases: tuple[Case, ...]
    seed: int
    epoch: int
    training: bool
    # Above 1 where --minutes left fewer epochs than the preset has.
    preset_epochs_per_epoch: float = 1.0

    @property
    def preset_epoch(self) -> float:
        """The epoch as the preset counts them: for what it schedules by epochs."""
        return self.epoch * self.preset_epochs_per_epoch


@dataclass(frozen=True)
class Truth:
    """The reference of one case, on the input's own grid."""

    case_id: str
    patient_id: str
    label: float | None = None
    outcome: Outcome | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    grids: Mapping[str, Grid] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """What a model says of one case.

    ``scalars`` are the task's columns of the CSV; ``elements`` the rows of slices.csv; ``arrays``
    lie on the input's own grid, that ``grids`` has by the same name.
    """

    case_id: str
    patient_id: str
    scalars: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    grids: Mapping[str, Grid] = field(default_factory=dict)
    elements: tuple[Mapping[str, Any], ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Score:
    """One number with what is needed to read it.

    ``trivial`` is what a predictor that knows nothing of the case would have scored, and
    ``trivial_by`` which one.
    """

    name: str
    value: float
    n: int
    low: float = float("nan")
    high: float = float("nan")
    interval: str = ""
    convention: str = ""
    trivial: float = float("nan")
    trivial_by: str = ""


@dataclass(frozen=True)
class Scores:
    """The metrics of one set of predictions; ``optimistic`` names why, when they are."""

    metrics: Mapping[str, Score]
    per_case: tuple[Mapping[str, Any], ...] = ()
    tables: Mapping[str, Any] = field(default_factory=dict)
    optimistic: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeploymentSpec:
    """How a network leaves medtool: example inputs, named outputs, what is inside the file.

    ``free_axes`` names, by input, the axes that may have any size: {"image": {0: "images"}}.
    ``typical`` has, by input, means and deviations (of each channel, or one for all) of values that
    are like real ones; (0, 1) where nothing is said. ``has_background``: of several maps the first
    is what is left by the others; else each says by itself whether its structure is there.
    """

    inputs: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    inside: tuple[str, ...] = ()
    stochastic_from: str = ""
    free_axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    typical: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    has_background: bool = True


@dataclass(frozen=True)
class Section:
    """One section of the report that a task adds: HTML made of our own templates only."""

    title: str
    html: str
    order: int = 100
