"""A run folder as a training leaves it, with made-up numbers and hostile ids."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from struct import pack

import numpy as np

from medtool.core.names import safe_file_stem
from medtool.data.predictions import LEADING_COLUMNS
from medtool.data.run_folder import RunFolder, write_rows
from medtool.score.classification import MetricDefaults, SelectionPart, binary_scores
from medtool.score.confounders import confounder_aurocs
from medtool.score.document import scores_to_document

HOSTILE_ID = '<script>alert("x")</script><img src=http://example.invalid/x.png>'
# A case of the test part that is among the worst, so that its id is shown.
HOSTILE_NUMBER = 99
PRESET = """
description = "A made-up run"
[model]
backbone = "resnet50"
[metrics]
primary = "auroc"
threshold_rule = "f1"
bootstrap_draws = 500
confidence = 0.95
subgroups = ["manufacturer", "kernel", "thickness_mm"]
[train]
epochs = 20
batch_cases = 4
optimiser = "adamw"
gradient_clip = 1.0
seed = 7
[[train.stages]]
from_epoch = 0
[train.stages.rates]
head = 5e-5
[[train.stages]]
from_epoch = 5
[train.stages.rates]
head = 5e-5
layer4 = 1e-5
[[train.stages]]
from_epoch = 12
[train.stages.rates]
head = 5e-5
layer4 = 1e-5
layer3 = 5e-6
[report]
worst_cases = 6
"""


def build_run(path: Path, *, cases: int = 160, seed: int = 0, parts: bool = True) -> RunFolder:
    """Write a whole run folder; with ``parts`` false there is no test part."""
    run = RunFolder(path)
    path.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    rows = _cases(generator, cases, with_test=parts)
    run.preset_file.write_text(PRESET, encoding="utf-8")
    run.write_cases(rows)
    run.write_history(_history(generator))
    run.write_checkpoints(_checkpoints())
    _write_predictions(run, rows, generator)
    confounders = confounder_aurocs(
        [{k: r[k] for k in ("manufacturer", "kernel", "thickness_mm", "slices")} for r in rows],
        [r["label"] for r in rows],
        [r["patient"] for r in rows],
    )
    run.write_run(
        {
            "task": "brainmet",
            "preset": "curriculum",
            "command": ["medtool", "train", "brainmet", "--preset", "curriculum"],
            "versions": {"medtool": "0.1.0", "torch": "2.8.0", "numpy": "2.3.1"},
            "machine": {"cores": 2, "memory_gib": 7.8, "device": "cpu"},
            "seconds": {"preparation": 812.4, "training": 10233.0, "scoring": 61.2},
            "weights": {"source": "RadImageNet, revision 1a2b3c", "licence": "not stated"},
            "confounders": confounders,
            "synthetic": True,
            "notes": ["The estimate before the start was 2.9 hours and 4.1 GB."],
            "failures": [{"case": "S900", "code": "no-brain"}, {"case": "S901", "code": "timeout"}],
            "ended_utc": "made-up",
        }
    )
    run.intake_file.write_text(json.dumps(_intake(rows)), encoding="utf-8")
    return run


def _cases(generator: np.random.Generator, count: int, *, with_test: bool) -> list[dict]:
    rows = []
    for number in range(count):
        label = int(generator.random() < 0.4)
        part = "train" if number % 10 < 6 else "selection" if number % 10 < 8 else "test"
        if part == "test" and not with_test:
            part = "selection"
        case = HOSTILE_ID if number == HOSTILE_NUMBER else f"S{number:03d}"
        rows.append(
            {
                "case": case,
                "patient": f"P{number - 1:03d}" if number % 20 == 9 else f"P{number:03d}",
                "study_uid": f"1.2.3.{number}",
                "part": part,
                "label": label,
                "manufacturer": str(
                    generator.choice(["Siemens", "GE", "Philips"], p=[0.5, 0.3, 0.2])
                ),
                "kernel": str(generator.choice(["H30s", "STANDARD", "J40s"])),
                "thickness_mm": float(generator.choice([1.0, 3.0, 5.0])),
                "slices": int(generator.integers(28, 200)),
            }
        )
    # Those that could not be prepared keep the part that they were dealt.
    for name in ("S900", "S901"):
        rows.append({**rows[0], "case": name, "patient": f"P{name[1:]}"})
    return rows


def _history(generator: np.random.Generator) -> list[dict]:
    rows = []
    for epoch in range(20):
        stage = 0 if epoch < 5 else 1 if epoch < 12 else 2
        up = 1 - np.exp(-epoch / 6)
        rows.append(
            {
                "epoch": epoch,
                "stage": stage,
                "seconds": 500.0 + 20 * generator.random(),
                "data_wait_share": 0.03,
                "loss": 0.7 - 0.45 * up + 0.02 * generator.random(),
                "selection_loss": 0.7 - 0.35 * up + 0.04 * generator.random(),
                "selection_auroc": 0.5 + 0.38 * up + 0.02 * generator.random(),
                "selection_f1": 0.3 + 0.45 * up + 0.04 * generator.random(),
                "selection_sensitivity": 0.5 + 0.3 * up + 0.06 * generator.random(),
                "selection_specificity": 0.6 + 0.2 * up + 0.06 * generator.random(),
                "rate_head": 5e-5,
                "rate_layer4": 1e-5 if stage >= 1 else 0.0,
                "rate_layer3": 5e-6 if stage >= 2 else 0.0,
            }
        )
    return rows


def _checkpoints() -> list[dict]:
    common = {"metric": "auroc", "low": 0.78, "high": 0.95, "threshold": 0.41, "sha256": "ab" * 32}
    return [
        {"file": "best.safetensors", "kind": "best", "epoch": 16, "value": 0.881, **common},
        {"file": "last.safetensors", "kind": "last", "epoch": 19, "value": 0.874, **common},
        {"file": "stage-0.safetensors", "kind": "stage-end", "epoch": 4, "value": 0.71, **common},
    ]


def _write_predictions(run: RunFolder, rows: list[dict], generator: np.random.Generator) -> None:
    scored, chosen = {}, {}
    for part in ("selection", "test"):
        mine = [row for row in rows if row["part"] == part]
        if not mine:
            continue
        logit = np.asarray([2.2 * r["label"] - 1.1 for r in mine]) + generator.normal(
            size=len(mine)
        )
        probability = 1 / (1 + np.exp(-logit))
        chosen[part] = (mine, probability)
        folder = run.predictions_folder / part
        table = [
            {
                **{k: row[k] for k in ("case", "patient", "study_uid")},
                "status": "ok",
                "probability": float(p),
                "decision": "positive" if p >= 0.41 else "negative",
                "threshold": 0.41,
                "logit": float(z),
            }
            for row, p, z in zip(mine, probability, logit, strict=True)
        ]
        table.append({"case": "S950", "patient": "P950", "status": "refused", "code": "no-brain"})
        columns = (*LEADING_COLUMNS, "probability", "decision", "threshold", "logit")
        write_rows(folder / "predictions.csv", table, columns)
        write_rows(folder / "slices.csv", [s for row in table for s in _slices(row)])
        for row in mine[:40]:
            _write_pictures(folder / "overlays" / safe_file_stem(row["case"]), generator)
    for part, (mine, probability) in chosen.items():
        source = chosen["selection"]
        scored[part] = scores_to_document(
            binary_scores(
                [r["label"] for r in mine],
                probability,
                [r["patient"] for r in mine],
                threshold=0.41,
                metrics=MetricDefaults(bootstrap_draws=500),
                subgroups={
                    name: [r[name] for r in mine]
                    for name in ("manufacturer", "kernel", "thickness_mm")
                },
                selection=SelectionPart([r["label"] for r in source[0]], source[1])
                if part == "test"
                else None,
                cases=[r["case"] for r in mine],
                optimistic="selection set, optimistic" if part == "selection" else "",
            )
        )
    run.scores_file.write_text(json.dumps(scored), encoding="utf-8")


def _slices(row: dict) -> list[dict]:
    if row["status"] != "ok":
        return []
    return [
        {
            "case": row["case"],
            "index": number,
            "instance": number + 1,
            "position_mm": 5.0 * number - 40,
            "logit": row["logit"] - abs(number - 12) / 4,
        }
        for number in range(24)
    ]


def _write_pictures(folder: Path, generator: np.random.Generator) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    for number in range(3):
        head = ((x / 0.75) ** 2 + (y / 0.9) ** 2 < 1) * 120.0
        spot = 90 * np.exp(-((x - 0.3) ** 2 + (y + 0.1 * number) ** 2) / 0.01)
        grey = np.clip(head + spot + 12 * generator.normal(size=x.shape), 0, 255).astype(np.uint8)
        (folder / f"slice_{number + 11}.png").write_bytes(_png(grey))


def _png(grey: np.ndarray) -> bytes:
    """An 8-bit grey PNG, by hand."""
    rows, columns = grey.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\x00" + line.tobytes() for line in grey)
    head = chunk(b"IHDR", pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def _intake(rows: list[dict]) -> dict:
    series = [
        {
            "uid": f"1.2.3.{n}.1",
            "case": row["case"],
            "patient": row["patient"],
            "verdict": "repaired" if n % 30 == 0 else "accepted",
            "codes": ["gantry-tilt"] if n % 30 == 0 else [],
            "chosen": True,
        }
        for n, row in enumerate(rows)
    ]
    for n, code in enumerate(["missing-slices", "missing-slices", "wrong-modality", "localizer"]):
        series.append(
            {
                "uid": f"9.{n}",
                "case": f"R{n:02d}",
                "verdict": "refused",
                "codes": [code],
                "chosen": False,
            }
        )
    return {"series": series, "skipped": [{"file": "DICOMDIR", "code": "no-image", "why": ""}] * 3}
