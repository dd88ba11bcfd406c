"""docs/benchmarks.md from the results: what was measured beside what was aimed at.

    python benchmarks/page.py [--check]

The page holds nothing that is not in benchmarks/results; a test compares the two.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from results import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"

Document = Mapping[str, Any]


class Text(NamedTuple):
    """What the page says of one benchmark; ``missed`` only where a target is missed."""

    title: str
    about: str
    missed: str = ""


TITLES = {
    "startup": Text(
        "Start-up",
        "How long a command takes to start, in multiples of an empty Python; and the help pages of "
        "nnU-Net and TotalSegmentator in multiples of ours. Best of several rounds.",
    ),
    "install_size": Text(
        "Install size",
        "What one `pip` command with `constraints.txt` puts on the disk.",
    ),
    "resolve": Text(
        "Pythons and systems",
        "Whether the versions of `constraints.txt` have wheels for each supported Python and "
        "system (1), as pip resolves them; nothing is installed.",
    ),
    "scan_headers": Text(
        "Scanning headers",
        "Finding the series of a folder. The pydicom loop only reads headers; ours also groups, "
        "orders, judges and describes the series.",
    ),
    "read_series": Text(
        "Reading a series into HU",
        "400 slices of 512 x 512, from the folder to HU, beside a plain pydicom loop with its "
        "decoder plugins and SimpleITK's series reader. They take turns; the best of each counts; "
        "in every round all pixels are the same bits.",
        "Decoding takes nearly all of the time of compressed series, and both peers call compiled "
        "decoders as we do. Planes decode in parallel, which gives at most a factor of two on two "
        "cores; what goes beyond comes from a faster decoder. JPEG 2000 has the same one on all "
        "sides (OpenJPEG), and both peers let it work with two threads inside an image. Nine "
        "tenths of our time are OpenJPEG's own, on both cores at once: what is left to win on two "
        "cores is what the peers' threads lose by waiting, and that differs from run to run (1.2 "
        "to 1.5 times). HTJ2K is decoded by OpenJPH, about twice as fast on one core as the "
        "OpenJPEG of pydicom's plugin, so that beside pydicom two cores give between four and six. "
        "Uncompressed, half of our time is the system's, for reading files and for clearing the "
        "volume's fresh memory, and a third is Python's, for headers.",
    ),
    "whole_body_pet": Text(
        "A whole-body PET/CT",
        "From a folder with a CT of 300 x 512 x 512 and a PET of 300 x 200 x 200 to SUV and HU on "
        "the network's grid, beside a pydicom loop and SimpleITK's resampling that are told which "
        "files belong together. Ours reads all headers, pairs the series, checks the SUV, averages "
        "the CT before it is made coarser, and hashes the pixels for the gate between training "
        "and test.",
    ),
    "mask_memory": Text(
        "Memory of a large mask",
        "Peak memory of a process that moves a tiny network over a volume in windows, brings its "
        "answers back to the image's size and decides them, slab by slab.",
    ),
    "prepare_cohort": Text(
        "Preparing a cohort",
        "The task brainmet's preparation (reading, brain extraction, slices, cache), by worker "
        "processes. Peak memory shows that a large cohort needs no more than a small one.",
        "Two workers share one memory bus and one boost clock: numpy's passes over whole volumes "
        "slow each other down.",
    ),
    "nnunet_planning": Text(
        "Planning beside nnU-Net",
        "Whether patch, batch, network, spacing and normalisation of every configuration are those "
        "of nnU-Net's own planner.",
    ),
    "nnunet_preparation": Text(
        "Preparing segmentation data beside nnU-Net",
        "The same arrays by the same plan, on files with odd spacings; then one CT from file to "
        "file, and resampling alone (400 x 512 x 512 voxels to 320 x 410 x 410), a fresh process a "
        "time, both sides in turns. Memory is the rise over what the process held before. Ours is "
        "given with all cores and with one thread, for nnU-Net prepares a case in one.",
    ),
    "nnunet_models": Text(
        "Models of nnU-Net",
        "Networks that nnU-Net trains for some steps, imported: the softmax of both on nnU-Net's "
        "own prepared images, and the masks of both from file to file, two folds averaged, without "
        "mirroring. nnU-Net sums windows and folds in 16 bits; its masks are given once more with "
        "sums in 32 bits. Then what is exported from the import answers through nnUNetv2_predict.",
    ),
    "nnunet_inference": Text(
        "Answering beside nnU-Net",
        "Both commands answer for the same CT with the same weights (a plain U-Net from 32 "
        "features with random ones), from file to file, on the CPU and without mirroring, in "
        "turns and each in a process of its own. Memory is that of all processes of a command, "
        "what they share counted once.",
    ),
    "nnunet_step": Text(
        "What a longer step costs",
        "`infer.step` of the preset `default` moves windows further than nnU-Net does: fewer "
        "windows, which is most of its speed. The same trained network, whose windows are small "
        "beside the scans (hippocampus, held out), answers with that step and with nnU-Net's, and "
        "once more through nnUNetv2_predict; Dice is with the experts' masks.",
    ),
    "segment_training": Text(
        "Training `segment` for some minutes",
        "`medtool train segment` on 90 hippocampus scans (anterior and posterior part): five "
        "folds, each a command of its own, every scan answered by the model that never saw it.",
    ),
    "segment_beside_nnunet": Text(
        "Training `segment` beside nnU-Net",
        "`medtool train segment` on fold 0 of nnU-Net's default split of the same scans, and "
        "nnU-Net's own trainer for the same minutes on the same fold and cores, its schedule "
        "fitted to them.",
    ),
    "training_step": Text(
        "A training step",
        "The product's step beside the same network and batch in a bare PyTorch loop, and the "
        "share of an epoch spent waiting for data. Steps scatter up and down by a tenth: the "
        "middle of the rounds' ratios counts, not the best of each side.",
    ),
    "infer_studies": Text(
        "`medtool infer`",
        "Where the seconds of a study go (ResNet-50 on all slices, on the CPU), whether preparing "
        "overlaps the network, and whether memory stays flat. Steps overlap in time: they add up "
        "to more than the whole.",
        "On two cores preparing and the network share the same processors, so together they cannot "
        "be as fast as the slower one alone with both cores.",
    ),
    "surface_metrics": Text(
        "Surface distances",
        "HD, HD95, surface Dice and both directed means beside surface-distance, the average "
        "symmetric distance beside MONAI and MedPy: the largest difference of any of them, and the "
        "time of HD95 and surface Dice on one large pair of masks in memory. MONAI's own HD95 and "
        "surface Dice are of another definition.",
    ),
    "survival_metrics": Text(
        "Survival",
        "Cox's regression, C-indices, AUC, Brier scores, baseline hazard, Kaplan-Meier and "
        "log-rank beside lifelines and scikit-survival on the four tables of patients that come "
        "with them: the largest difference of any number. The time of a C-index of simulated "
        "patients, and of a draw of its bootstrap, for which the peers need one more index. Cox's "
        "loss with its gradient beside torchsurv.",
    ),
    "optimisation": Text(
        "Optimised models",
        "How many times as fast as PyTorch in float32, two threads, and how much smaller: the "
        "U-Net of heart's default preset (31 million parameters, 256 x 256) and the ResNet-50 of "
        "brainmet's, as they are and with 35 % of the channels of each layer gone. Weights are "
        "random, which changes no time; what is lost in accuracy is judged by "
        "`medtool optimize` on each model. All ways take turns; the median of each counts. "
        "“PyTorch as infer” has its weights laid out as `infer` does. What INT8 gains hangs on the "
        "processor: with AMX OpenVINO's was 1.3 to 2.7 times as fast again, of pruned networks "
        "up to 1.3 times.",
    ),
    "optimised_accuracy": Text(
        "Optimised models: what is lost",
        "Networks that have learned, made INT8 by `medtool optimize`, and with 35 % of the "
        "channels of each layer taken out in two rounds and trained again: by how much the task's "
        "own metric falls on patients that neither training nor any choice has seen, by each "
        "engine. The whole U-Net of heart and a ResNet-50 for brainmet on generated data; "
        "where real patients are named, also the planned 3D U-Net of segment.",
    ),
    "monte_carlo_passes": Text(
        "Monte Carlo passes",
        "Thirty passes of dropout through a U-Net that share what comes before it, and what later "
        "levels make of the encoder's maps, in multiples of thirty whole passes; and by how much "
        "their logits differ, beside the largest.",
    ),
    "laptop": Text(
        "The preset `laptop`",
        "The whole `medtool train brainmet --preset laptop` on 40 studies, extrapolated.",
    ),
    "heart_mr": Text(
        "Cardiac MR, one patient left out at a time",
        "The task heart with its preset `small` on 41 frames of four patients with an expert's "
        "outline of the left ventricle: each fold learns from two patients, chooses its epoch by a "
        "third and is scored on the fourth. Beside it the best threshold on brightness, chosen on "
        "the other patients.",
    ),
    "petct_quality": Text(
        "The demo of petct: what is learned",
        "The preset `demo` of petct on synthetic PET/CT cohorts whose true hazard is known, with "
        "120 held-out patients each: outlines, order of events beside the best order that can be "
        "reached, calibration and uncertainty; beside it the best threshold on SUV, and models "
        "that learned outlines alone or survival alone.",
    ),
    "demo_minutes": Text(
        "The demos: time and what is learned",
        "The whole command `medtool demo TASK DIR`: cohort, check, preprocess, train, infer, "
        "evaluate, inspect-checkpoint; and the metric of its model on the patients that the run "
        "held out.",
    ),
    "demo_quality": Text(
        "The demo: what is learned",
        "What the demo's model reaches on patients that it never saw, over several cohorts and "
        "runs; that small runs of the same kind learn nothing where there is nothing to learn; and "
        "what scanner, slice count and mean HU tell alone, at their most flattering (scanners "
        "ranked by their own rate of positives, numbers in the better direction).",
    ),
}

INTRO = """# Benchmarks

`make bench` measures all of this in some hours and writes this page from
`benchmarks/results/*.json`; each benchmark also runs alone and says with `--help` what it does.
Seconds differ from machine to machine, so targets are ratios wherever one can be had: both sides
take turns in one run, and of each the best time counts (a busy machine only ever adds), unless a
benchmark says otherwise.
"""


def read_results(folder: Path) -> dict[str, Document]:
    """The results there are, by name, in the order of the page."""
    files = {name: folder / f"{name}.json" for name in TITLES}
    return {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name, path in files.items()
        if path.exists()
    }


def page_text(folder: Path) -> str:
    """The whole page."""
    found = read_results(folder)
    elsewhere = {name: _elsewhere(folder, name) for name in TITLES}
    parts = [INTRO, *_machines(found.values()), _summary(found, elsewhere)]
    for name, text in TITLES.items():
        parts.append(_section(text, found.get(name)))
        parts += [_same_on(document) for document in elsewhere[name]]
    return "\n".join(parts)


def _machines(documents: Iterable[Document]) -> list[str]:
    seen: dict[str, None] = {}
    for document in documents:
        machine = document["machine"]
        text = f"{machine['processor']}, {machine['cores']} cores, {machine['system']}"
        gpu = "no GPU" if machine["gpu"] == "none" else str(machine["gpu"])
        seen[f"{text}, {gpu}, Python {document['versions']['python']}"] = None
    return (
        [f"Measured on: {'; '.join(seen)}. Nothing here was measured on a GPU.\n"] if seen else []
    )


def _summary(found: Mapping[str, Document], elsewhere: Mapping[str, list[Document]]) -> str:
    rows = [
        (TITLES[name].title, row) for name, document in found.items() for row in document["rows"]
    ]
    rows += [
        (f"{TITLES[name].title}, on {_where(document)}", row)
        for name, documents in elsewhere.items()
        for document in documents
        for row in document["rows"]
    ]
    aimed = [(title, row) for title, row in rows if target_text(row)]
    missed = [(title, row) for title, row in aimed if not row["kept"]]
    text = f"{len(aimed) - len(missed)} of {len(aimed)} targets are met."
    if not missed:
        return text + "\n"
    lines = [
        f"- {title}: {row['what']}: {value_text(row)} ({target_text(row)})" for title, row in missed
    ]
    return "\n".join([text + " Missed:", "", *lines, ""])


def _section(text: Text, document: Document | None) -> str:
    lines = [f"## {text.title}", "", text.about, ""]
    if document is None:
        return "\n".join([*lines, "Not measured yet.", ""])
    lines += ["| what | measured | target | met |", "|---|---|---|---|"]
    lines += [
        f"| {row['what']} | {value_text(row)} | {target_text(row) or '-'} | {_met(row)} |"
        for row in document["rows"]
    ]
    lines.append("")
    if text.missed and not document["kept"]:
        lines += [text.missed, ""]
    for note in document["notes"]:
        lines += [note, ""]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return "\n".join([*lines, f"`{document['command']}`; {versions}.", ""])


def _elsewhere(folder: Path, name: str) -> list[Document]:
    """The same benchmark on other machines, whose results have folders of their own."""
    paths = sorted(folder.glob(f"*/{name}.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _where(document: Document) -> str:
    machine = document["machine"]
    return f"{machine['processor']}, {machine['cores']} cores"


def _same_on(document: Document) -> str:
    where = _where(document)
    lines = [f"The same on {where}:", "", f"| {where} | measured | target | met |"]
    lines.append("|---|---|---|---|")
    lines += [
        f"| {where}: {row['what']} | {value_text(row)} | {target_text(row) or '-'} | {_met(row)} |"
        for row in document["rows"]
    ]
    return "\n".join([*lines, ""])


def _met(row: Document) -> str:
    if not target_text(row):
        return "-"
    return "yes" if row["kept"] else "**no**"


def value_text(row: Document) -> str:
    """A value with its unit, three digits."""
    return f"{row['value']:.3g} {row['unit']}".strip()


def target_text(row: Document) -> str:
    """What was aimed at; "" where the row is only told."""
    least, most = row["least"], row["most"]
    if least is not None and most is not None:
        return f"{least:g} to {most:g}"
    if least is not None:
        return f"at least {least:g}"
    return f"at most {most:g}" if most is not None else ""


def main() -> int:
    """Write the page, or say whether it is the one that the results make."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = page_text(RESULTS)
    if options.check:
        return 0 if PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
