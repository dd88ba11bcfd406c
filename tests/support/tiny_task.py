"""A complete task on tiny random scans, registered nowhere: what the core's own tests run on.

Data: ``scans/<patient>/<study>.npy``, float32 (slices, 16, 16), and ``labels.csv`` beside
``scans``. A positive study has a bright square of 4 x 4 pixels in one slice. The network is two
linear layers (groups ``trunk`` and ``head``, no batch norm, no dropout) and a maximum over slices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from medtool.config.sections import DataSection, Section, TaskSettings, TrainSection
from medtool.core.errors import CaseRefused, InputError
from medtool.core.geometry import Grid
from medtool.core.progress import Reporter
from medtool.core.records import (
    Batch,
    Case,
    Cohort,
    DeploymentSpec,
    ExampleKey,
    Finding,
    Prediction,
    Prepared,
    Scores,
    Source,
    Truth,
)
from medtool.core.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import Dataset

SIDE_PX = 16
SQUARE_PX = 4
DEMO_PATIENTS = 12


class TinyPreparation(Section):
    """How a tiny scan is prepared."""

    scale: float = 1.0
    """Factor on the stored values."""


class TinyData(DataSection):
    """Data of the tiny task."""

    preparation: TinyPreparation = TinyPreparation()
    """How a tiny scan is prepared."""


class TinyAugment(Section):
    """Random changes of the tiny task."""

    noise: float = 0.1
    """Standard deviation of the noise that training adds."""


class TinySettings(TaskSettings):
    """A whole preset of the tiny task."""

    data: TinyData = TinyData()
    """Data of the tiny task."""
    augment: TinyAugment = TinyAugment()
    """Random changes of the tiny task."""
    train: TrainSection = TrainSection(epochs=3, batch_cases=2, learning_rate=1e-2)
    """The training run."""


class TinyTask(Task):
    """Is there a bright square in a scan of noise?"""

    name: ClassVar[str] = "tiny"
    summary: ClassVar[str] = "finds a bright square in noise"
    settings_type: ClassVar[type[TaskSettings]] = TinySettings
    settings: TinySettings
    preparation_version: ClassVar[int] = 1
    columns: ClassVar[Mapping[str, tuple[str, str, str]]] = {
        "probability": ("float", "", "probability of a square"),
        "logit": ("float", "", "log odds of a square"),
    }

    def find(self, source: Source) -> Cohort:
        """One case a .npy file; what is no array of slices is skipped."""
        files = sorted(file for path in source.paths for file in _files(path))
        if not files:
            raise InputError("No tiny scans were found.", where=str(source.paths))
        cases, skipped, series = [], [], []
        for file in files:
            if file.suffix != ".npy":
                skipped.append({"file": str(file), "code": "not-a-scan", "why": "no .npy file"})
                continue
            case = _case(file)
            cases.append(case)
            series.append(
                {
                    "uid": case.study_uid,
                    "case": case.case_id,
                    "patient": case.patient_id,
                    "description": "",
                    "files": 1,
                    "verdict": "accepted",
                    "codes": [],
                    "reasons": [],
                    "repairs": [],
                    "warnings": [],
                    "score": 1.0,
                    "chosen": source.series_overrides.get(case.study_uid, True),
                    "size": [SIDE_PX, SIDE_PX, case.facts["slices"]],
                    "spacing_mm": [1.0, 1.0, 2.0],
                    "origin_mm": [0.0, 0.0, 0.0],
                    "direction": list(Grid((1, 1, 1), (1, 1, 1), (0, 0, 0)).direction),
                    "findings": [],
                }
            )
        used = tuple(c for c in cases if source.series_overrides.get(c.study_uid, True))
        return Cohort(used, {"series": series, "skipped": skipped})

    def check(self, case: Case) -> list[Finding]:
        """Whether every value is finite."""
        if np.isfinite(np.load(case.inputs["scan"])).all():
            return []
        return [Finding("not-finite", "some values are not finite", "refusal")]

    def prepare(self, case: Case) -> Prepared:
        """The scan times ``scale``."""
        if "scan" not in case.inputs:
            raise CaseRefused("no-scan", "the case has no scan")
        scan = np.load(case.inputs["scan"])
        if scan.ndim != 3 or scan.shape[1:] != (SIDE_PX, SIDE_PX):
            raise CaseRefused("wrong-size", "the scan has another size", met=str(scan.shape))
        slices = (scan * self.settings.data.preparation.scale).astype(np.float32)
        hashes = [hashlib.blake2b(s.tobytes(), digest_size=16).hexdigest() for s in slices]
        return Prepared(
            case_id=case.case_id,
            arrays={"slices": slices},
            grids={
                "slices": Grid((SIDE_PX, SIDE_PX, len(slices)), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))
            },
            elements=tuple({"slice": i, "used": True, "reason": ""} for i in range(len(slices))),
            facts={
                "slice_hashes": hashes,
                "spacing_mm": [1.0, 1.0, 2.0],
                "hu_quantiles": [float(q) for q in np.quantile(slices, [0.0, 0.5, 1.0])],
            },
        )

    def truth(self, case: Case) -> Truth:
        """The label of the study."""
        return Truth(case.case_id, case.patient_id, case.label)

    def network(self) -> nn.Module:
        """16 x 16 -> 8 -> 1 for each slice, then the maximum over slices."""
        from torch import nn

        class TinyNetwork(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.trunk = nn.Linear(SIDE_PX * SIDE_PX, 8)
                self.head = nn.Linear(8, 1)

            def forward(self, slices: Tensor) -> Tensor:
                """Logit of a bag: (slices, 16, 16) -> scalar."""
                hidden = self.trunk(slices.flatten(1)).tanh()
                logit: Tensor = self.head(hidden).max()
                return logit

        return TinyNetwork()

    def groups(self, network: nn.Module) -> dict[str, list[nn.Module]]:
        """``trunk`` and ``head``."""
        return {"trunk": [network.trunk], "head": [network.head]}  # type: ignore[list-item]

    def examples(
        self, cases: Sequence[Case], prepared: Mapping[str, Path], *, training: bool
    ) -> Dataset[Any]:
        """Bags of slices; training adds noise drawn from (seed, epoch, case, copy)."""
        return TinyExamples(cases, prepared, noise=self.settings.augment.noise if training else 0)

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Binary cross-entropy, mean over the cases."""
        import torch
        from torch.nn import functional

        logits = torch.stack([network(bag) for bag in batch.tensors["bags"]])
        labels = batch.tensors["labels"]
        return {"loss": functional.binary_cross_entropy_with_logits(logits, labels)}

    def validate(self, network: nn.Module, batch: Batch) -> dict[str, Any]:
        """Logit, label and loss of each case."""
        import torch
        from torch.nn import functional

        with torch.no_grad():
            logits = torch.stack([network(bag) for bag in batch.tensors["bags"]]).float()
            labels = batch.tensors["labels"]
            losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return {
            "case": [case.case_id for case in batch.cases],
            "logit": logits.tolist(),
            "label": labels.tolist(),
            "loss": losses.tolist(),
        }

    def summarise(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """AUROC (share of pairs in the right order, ties half) and mean loss."""
        logits = np.array([value for fact in facts for value in fact["logit"]])
        labels = np.array([value for fact in facts for value in fact["label"]])
        losses = [value for fact in facts for value in fact["loss"]]
        pairs = logits[labels == 1][:, None] - logits[labels == 0][None, :]
        auroc = float(np.mean((pairs > 0) + 0.5 * (pairs == 0))) if pairs.size else float("nan")
        return {"auroc": auroc, "loss": float(np.mean(losses))}

    def predict(self, model: Any, prepared: Prepared, case: Case) -> Prediction:
        """The probability of one study."""
        import torch

        with torch.no_grad():
            bag = torch.from_numpy(np.array(prepared.arrays["slices"])).to(model.device)
            logit = float(model.network(bag))
        return Prediction(
            case.case_id,
            case.patient_id,
            {"probability": 1 / (1 + float(np.exp(-logit))), "logit": logit},
            elements=tuple(prepared.elements),
        )

    def score(self, predictions: Sequence[Prediction], truths: Sequence[Truth]) -> Scores:
        """Binary scores at 0.5."""
        from medtool.score.classification import binary_scores

        labels = {truth.case_id: truth.label for truth in truths}
        return binary_scores(
            [labels[p.case_id] for p in predictions],
            [p.scalars["probability"] for p in predictions],
            [p.patient_id for p in predictions],
            threshold=0.5,
            cases=[p.case_id for p in predictions],
        )

    def deployment(self) -> DeploymentSpec:
        """Slices in, logit out."""
        return DeploymentSpec({"slices": (3, SIDE_PX, SIDE_PX)}, ("logit",))

    def write_demo(self, folder: Path, seed: int, reporter: Reporter | None = None) -> None:
        """Twelve patients, every other one with a square; the first has two studies."""
        write_tiny_cohort(folder, seed)


class TinyExamples:
    """A data set of bags, indexed by ExampleKey."""

    def __init__(
        self, cases: Sequence[Case], prepared: Mapping[str, Path], *, noise: float
    ) -> None:
        self.cases = list(cases)
        self.prepared = dict(prepared)
        self.noise = noise

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, key: ExampleKey) -> dict[str, Any]:
        from medtool.data.cache import read_prepared

        case = self.cases[key.index]
        slices = np.array(read_prepared(self.prepared[case.case_id]).arrays["slices"])
        if self.noise:
            words = f"{key.seed}/{key.epoch}/{case.case_id}/{key.copy}".encode()
            draw = np.random.default_rng(int.from_bytes(hashlib.blake2b(words).digest()[:8]))
            slices += draw.normal(0, self.noise, slices.shape).astype(np.float32)
        return {"slices": slices, "label": case.label}

    def collate(
        self, samples: Sequence[Mapping[str, Any]], cases: Sequence[Case], seed: int, epoch: int
    ) -> Batch:
        """Bags stay a list: they differ in length."""
        import torch

        return Batch(
            tensors={
                "bags": [torch.from_numpy(sample["slices"]) for sample in samples],
                "labels": torch.tensor([float(s["label"]) for s in samples]),
            },
            cases=tuple(cases),
            seed=seed,
            epoch=epoch,
            training=self.noise > 0,
        )


def write_tiny_cohort(folder: Path, seed: int = 0, *, patients: int = DEMO_PATIENTS) -> Path:
    """Write ``scans/`` and ``labels.csv`` (id = study) below ``folder``; gives ``folder``."""
    draw = np.random.default_rng(seed)
    rows = ["case,label"]
    for number in range(patients):
        patient = f"P{number:03d}"
        for study in range(2 if number == 0 else 1):
            label = number % 2
            scan = draw.normal(0, 1, (int(draw.integers(3, 6)), SIDE_PX, SIDE_PX))
            if label:
                row, column = draw.integers(0, SIDE_PX - SQUARE_PX, 2)
                scan[draw.integers(len(scan)), row : row + SQUARE_PX, column:][:, :SQUARE_PX] += 6
            case_id = f"{patient}_{study}"
            file = folder / "scans" / patient / f"{case_id}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, scan.astype(np.float32))
            rows.append(f"{case_id},{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    scans = path / "scans" if (path / "scans").is_dir() else path
    return [file for file in scans.rglob("*") if file.is_file() and ".medtool" not in file.parts]


def _case(file: Path) -> Case:
    slices = int(np.load(file, mmap_mode="r").shape[0])
    return Case(
        case_id=file.stem,
        patient_id=file.parent.name,
        study_uid=f"2.25.{int.from_bytes(file.stem.encode())}",
        inputs={"scan": file},
        accession=f"A{file.stem}",
        study_date="20200101",
        folder=file.parent.name,
        facts={
            "manufacturer": "tiny",
            "kernel": "none",
            "thickness_mm": 2.0,
            "slices": slices,
            "synthetic": True,
        },
    )
