"""What ``infer`` writes of each study: its row, its slices, its record, with or without names."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool import __version__
from medtool.config.places import without_places
from medtool.config.sections import DataSection
from medtool.core.deployed import hashes_of, one_hash
from medtool.core.errors import UsageError
from medtool.core.files import file_sha256, files_sha256
from medtool.core.names import case_file_stem
from medtool.core.progress import Reporter
from medtool.core.records import Case, Finding, Prediction, RefusedStudy
from medtool.core.task import Task
from medtool.data.cache import input_files
from medtool.data.cohort import PATIENT_ID_SHARED
from medtool.data.predictions import LEADING_COLUMNS
from medtool.data.privacy import Pseudonymiser, read_key
from medtool.data.run_record import now_utc, run_record
from medtool.predict.unwritten import why_unwritten
from medtool.verbs.infer_output import OutputPlace, count_studies, what_is_asked

if TYPE_CHECKING:
    from medtool.predict.cases import CaseOutcome
    from medtool.predict.model import Model
    from medtool.verbs.infer import InferOptions
    from medtool.verbs.infer_output import Output


@dataclass
class _Written:
    """What is there of the answer of one case: its part of the row, its slices, its files."""

    columns: dict[str, Any] = field(default_factory=dict)
    elements: list[dict[str, Any]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)


class RowMaker:
    """Rows and records of one run; with a key, every id in them is a pseudonym.

    ``shared``: ids that are no patient's own, and why.
    """

    def __init__(
        self,
        model: Model,
        options: InferOptions,
        place: OutputPlace,
        shared: Mapping[str, str] | None = None,
    ) -> None:
        self.columns = list(model.task.columns)
        self._files = [name for name, (kind, _, _) in model.task.columns.items() if kind == "file"]
        self._model = model
        self._options = options
        self._place = place
        self._by = options.by or model.task.settings.infer.by
        self._by_patient = self._by == "patient"
        if self._by_patient:
            self.columns.append("studies")
        self._hashes = hashes_of(model.path)
        self._started = datetime.now(UTC)
        self._seconds: dict[str, float] = defaultdict(float)
        self._names: Pseudonymiser | None = None
        self._key_is_new = False
        if options.pseudonymise is not None:
            key, self._key_is_new = read_key(options.pseudonymise, output=place.folder)
            self._names = Pseudonymiser(key)
        # As they stand in the rows. That of a study without any id says so itself.
        self._shared = {self._patient(one): why for one, why in (shared or {}).items() if one}
        # Once: the files that it is of may change while studies are answered.
        self._identity = self._asked_of()

    # --- names ----------------------------------------------------------------------------
    def key(self, case_id: str) -> str:
        """The name of a case in everything that is written."""
        return self._names.name("case", case_id) if self._names else case_id

    def _patient(self, patient_id: str) -> str:
        return self._names.name("patient", patient_id) if self._names else patient_id

    def _uid(self, uid: str) -> str:
        return self._names.uid(uid) if self._names else uid

    def identity(self) -> dict[str, Any]:
        """What must be the same when a run that was cut off goes on."""
        return self._identity

    def _asked_of(self) -> dict[str, Any]:
        return {
            "checkpoint": one_hash(self._hashes),
            **what_is_asked(self._options, self._names),
            "by": self._by,
            "companions": self._companions(),
            "device": self._model.device.type,
            "precision": self._model.precision,
            "engine": self._model.engine_name,
            "version": __version__,
        }

    # --- entries --------------------------------------------------------------------------
    def refused_entry(self, study: RefusedStudy) -> dict[str, Any]:
        """The entry of a study without any usable series."""
        values = (
            self.key(study.case_id),
            self._patient(study.patient_id),
            self._uid(study.study_uid),
            "refused",
            study.code,
            "" if self._names else study.message,
        )
        return {
            "case": self.key(study.case_id),
            "row": dict(zip(LEADING_COLUMNS, values, strict=True)),
            "elements": [],
        }

    def entry(self, outcome: CaseOutcome) -> dict[str, Any]:
        """The entry of one outcome; writes its masks and pictures first.

        A case whose answer cannot be written is a failed one. Raises MachineError where no other
        case could be written either.
        """
        started = time.perf_counter()
        written = _Written()
        try:
            self._write(outcome, written)
        except Exception as error:  # noqa: BLE001 - one case must not end the others
            code, message = why_unwritten(error, self._place.folder)
            for path in written.files:
                path.unlink(missing_ok=True)
            written = _Written()
            outcome = replace(outcome, status="failed", code=code, message=message, prediction=None)
        case, findings = outcome.case, self._findings(outcome)
        row: dict[str, Any] = {
            "case": self.key(case.case_id),
            "patient": self._patient(case.patient_id),
            "study_uid": self._uid(case.study_uid),
            "status": outcome.status,
            "code": outcome.code or ";".join(dict.fromkeys(f.code for f in findings)),
            # Messages may name files and folders, and folders are often named after patients.
            "message": "" if self._names else outcome.message or _join(findings),
            **written.columns,
        }
        inputs_sha256 = _inputs_sha256(case)
        seconds = {**outcome.seconds, "writing": time.perf_counter() - started}
        for step, seconds_of_step in seconds.items():
            self._seconds[step] += seconds_of_step
        return {
            "case": row["case"],
            "row": row,
            "elements": written.elements,
            "inputs_sha256": inputs_sha256,
            "outputs_sha256": written.hashes,
            "seconds": {step: round(value, 3) for step, value in seconds.items()},
        }

    def _write(self, outcome: CaseOutcome, written: _Written) -> None:
        """Write what the answer of one case gives; ``written`` has what is there so far."""
        if outcome.prediction is None:
            return
        task, case, folder = self._model.task, outcome.case, self._place.folder
        prediction = self._renamed(outcome.prediction)
        written.columns = _plain(task.write(prediction, case, folder))
        named = [written.columns[name] for name in self._files if written.columns.get(name)]
        written.files += [folder / name for name in named]
        written.elements = [_plain(element) for element in prediction.elements]
        if self._options.dicom_seg:
            written.files += task.write_dicom(prediction, case, folder, self._model)
        if self._options.overlays and outcome.prepared is not None:
            pictures = folder / "overlays" / case_file_stem(self.key(case.case_id))
            written.files += task.picture(prediction, outcome.prepared, case, pictures)
        written.hashes = {
            path.relative_to(folder).as_posix(): file_sha256(path) for path in written.files
        }

    def _findings(self, outcome: CaseOutcome) -> list[Finding]:
        found = [f for f in outcome.case.findings if f.severity == "warning"]
        if outcome.prepared is not None:
            found += [f for f in outcome.prepared.findings if f.severity == "warning"]
        if outcome.prediction is not None:
            found += [f for f in outcome.prediction.findings if f.severity == "warning"]
        return list(dict.fromkeys(found))

    def _renamed(self, prediction: Prediction) -> Prediction:
        if self._names is None:
            return prediction

        def rename(values: Mapping[str, Any]) -> dict[str, Any]:
            return {
                name: self._uid(str(value)) if name.endswith("uid") and value else value
                for name, value in values.items()
            }

        return replace(
            prediction,
            case_id=self.key(prediction.case_id),
            patient_id=self._patient(prediction.patient_id),
            scalars=rename(prediction.scalars),
            elements=tuple(rename(element) for element in prediction.elements),
        )

    # --- tables ---------------------------------------------------------------------------
    def tables(
        self, entries: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The rows of predictions.csv and of slices.csv."""
        elements = [
            {"case": entry["case"], **element} for entry in entries for element in entry["elements"]
        ]
        if not self._by_patient:
            return [dict(entry["row"]) for entry in entries], elements
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for entry in entries:
            row = entry["row"]
            # A study without an id of its patient's own is a patient of its own: pooling strangers
            # would be a guess.
            groups.setdefault(self._own_patient(row) or f"\0{row['case']}", []).append(entry)
        return [self._pooled(group) for group in groups.values()], elements

    def _own_patient(self, row: Mapping[str, Any]) -> str:
        """The patient of a row; "" where its id is no patient's own."""
        patient = str(row["patient"])
        return "" if patient in self._shared else patient

    def say_shared(self, reporter: Reporter) -> None:
        """Warn of ids whose studies are not pooled."""
        for patient in self._shared if self._by_patient else ():
            reporter.warn(f"{self._why_alone(patient)} Each study has a row of its own.")

    def _why_alone(self, patient: str) -> str:
        return f"Not pooled by patient, '{patient}': {self._shared[patient]}."

    def _pooled(self, group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """One row for the studies of one patient; says which of them gave no answer."""
        rows = [entry["row"] for entry in group]
        answered = [entry for entry in group if entry["row"]["status"] == "ok"]
        silent = [row["case"] for row in rows if row["status"] != "ok"]
        messages = [row["message"] for row in rows if row["message"]]
        codes = [row["code"] for row in rows if row["code"]]
        patient, own = rows[0]["patient"], self._own_patient(rows[0])
        if patient in self._shared:
            codes.append(PATIENT_ID_SHARED)
            if self._names is None:
                messages.append(self._why_alone(patient))
        if silent and answered:
            messages.insert(0, f"without {', '.join(silent)}")
        pooled: dict[str, Any] = {
            "case": own or rows[0]["case"],
            "patient": patient,
            "study_uid": ";".join(entry["row"]["study_uid"] for entry in answered or group),
            "status": "ok" if answered else rows[0]["status"],
            "code": ";".join(dict.fromkeys(codes)),
            "message": " | ".join(messages),
            "studies": len(answered),
        }
        if answered:
            columns = self._model.task.columns
            predictions = [
                Prediction(
                    case_id=entry["row"]["case"],
                    patient_id=entry["row"]["patient"],
                    scalars={column: entry["row"].get(column) for column in columns},
                    elements=tuple(entry["elements"]),
                )
                for entry in answered
            ]
            pooled |= _plain(self._model.task.pool(predictions).scalars)
        return pooled

    def check_pooling(self) -> None:
        """Raises UsageError before any work where the task's answers cannot be pooled."""
        if self._by_patient and type(self._model.task).pool is Task.pool:
            self._model.task.pool(())

    def check_dicom(self) -> None:
        """Raises UsageError before any work where no DICOM objects can be written."""
        if not self._options.dicom_seg:
            return
        task = self._model.task
        if type(task).write_dicom is Task.write_dicom:
            task.write_dicom(Prediction("", "", {}), Case("", "", "", {}), Path(), self._model)
        if self._names is not None:
            raise UsageError(
                "A DICOM SEG carries the ids of its series.",
                met="--dicom-seg with --pseudonymise",
                wanted="one of the two",
            )

    # --- record ---------------------------------------------------------------------------
    def record(
        self,
        output: Output,
        studies: Sequence[Mapping[str, Any]],
        intake: Mapping[str, Any],
        *,
        startup_s: float,
    ) -> dict[str, Any]:
        """The document of run.json; with pseudonyms it holds no command, path or id.

        ``studies`` has a row for each study, also where the answers are those of patients.
        """
        hidden = self._names is not None
        return {
            **run_record("infer", "" if hidden else self._options.command, self._started),
            "task": self._model.task.name,
            "checkpoint": {
                "file": self._model.path.name,
                **self._hashes,
                "threshold": self._model.threshold,
                "synthetic": self._model.synthetic,
                "preset": _what_scores(self._model),
                "versions": self._model.document.get("versions", {}),
                "changed": [] if hidden else list(self._options.assignments),
                "companions": self._identity["companions"],
                **_members(self._model.document),
            },
            "device": self._model.computed_on,
            "precision": self._model.precision,
            "engine": self._model.engine_name,
            "by": self._by,
            "pseudonymised": hidden,
            "patients_shared": self._shared,
            "ended_utc": now_utc(),
            "seconds": {
                "startup": round(startup_s, 3),
                **{step: round(value, 3) for step, value in self._seconds.items()},
            },
            "identity": self.identity(),
            "studies": count_studies(studies),
            "cases": [
                {key: entry[key] for key in entry if key not in ("row", "elements")}
                for entry in output.done.values()
            ],
            "intake": {} if hidden else intake,
            "overrides": "" if hidden else str(self._options.series or ""),
        }

    def _companions(self) -> dict[str, str]:
        """The hash of each other model that is asked."""
        others = self._model.companions
        return {name: one_hash(hashes_of(other.path)) for name, other in others.items()}

    @property
    def new_key(self) -> Path | None:
        """The key file, when this run made it."""
        return self._options.pseudonymise if self._key_is_new else None


def _inputs_sha256(case: Case) -> str:
    """One hash of all files of a case; "" where one of them is not there any more."""
    try:
        return files_sha256({path for path, _ in input_files(case)})
    except OSError:
        return ""


def _what_scores(model: Model) -> dict[str, Any]:
    """What scores the answers and pools them, of a preset; not where data and weights were.

    Of the data it keeps how labels are read: else ``evaluate`` would score another column.
    """
    preset = without_places(type(model.task.settings), model.document["preset"])
    kept = {name: values for name, values in preset.items() if name != "data"}
    data = preset.get("data", {})
    if how_read := {key: data[key] for key in DataSection.label_keys if key in data}:
        kept["data"] = how_read
    network = kept.get("model", {})
    return {**kept, "model": {name: network[name] for name in network if name != "weights"}}


def _members(document: Mapping[str, Any]) -> dict[str, Any]:
    """Which models answered together, by name and hash; nothing where it was one."""
    members = [
        {"name": member["name"], "model_sha256": member["model_sha256"]}
        for member in document.get("members", ())
    ]
    return {"members": members} if members else {}


def _join(findings: Sequence[Finding]) -> str:
    """One text of sentences; some findings are told without a full stop."""
    return " ".join(finding.message.rstrip(".") + "." for finding in findings)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """numpy's numbers as Python's, so that JSON and CSV can hold them."""
    return {
        name: value.item() if hasattr(value, "item") else value for name, value in values.items()
    }
