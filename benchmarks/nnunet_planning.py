"""Whether our plans are nnU-Net's own, on generated data sets with odd spacings and on real files.

    python benchmarks/nnunet_planning.py [--peers DIR] [--hippocampus DIR]

``--peers`` is a virtual environment with nnunetv2 (benchmarks/requirements.txt; benchmarks/
.venv-peers is taken when it is there); without it only ours is run. ``--hippocampus`` is the
Hippocampus set of the Medical Segmentation Decathlon, or a part of it: there nnU-Net reads the
files, fingerprints and plans, and so do we.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunet_peer import PEERS, PeerCase, PeerSet, ask, dataset_name, peer_python, write_sets
from results import Row, begin, work_folder

# Our names of planners, and nnU-Net's classes.
PLANNERS = {
    "default": "ExperimentPlanner",
    "residual-m": "nnUNetPlannerResEncM",
    "residual-l": "nnUNetPlannerResEncL",
    "residual-xl": "nnUNetPlannerResEncXL",
}
SETS, QUICK_SETS = 24, 3
# Spacings are products of the same numbers in another order.
SPACING_TOLERANCE_MM = 1e-6
MOST_INTENSITY_DIFFERENCE = 0.01
HIPPOCAMPUS = "hippocampus"


@dataclass(frozen=True)
class DataSet:
    """A generated data set: what a fingerprint holds, and what the plan is told beside it."""

    name: str
    channels: tuple[str, ...]
    labels: int
    sizes: list[list[int]]
    spacings: list[list[float]]
    relative_size: float

    def peer(self) -> PeerSet:
        """The same for nnU-Net."""
        return PeerSet(self.name, self.channels, self.labels, len(self.sizes))


def generated(count: int) -> list[DataSet]:
    """Data sets whose spacings differ from axis to axis and from case to case."""
    draws = np.random.default_rng(20)
    found = []
    for number in range(count):
        cases = int(draws.integers(3, 300))
        spacing = draws.uniform(0.3, 1.5, 3) * np.where(draws.random(3) < 0.3, 5, 1)
        extent_mm = draws.uniform(40, 450, 3)
        spacings = spacing * np.exp(draws.normal(0, 0.3, (cases, 3)))
        sizes = np.maximum((extent_mm * np.exp(draws.normal(0, 0.2, (cases, 3)))) // spacings, 4)
        channels = tuple(draws.choice(["CT", "MR", "noNorm"], int(draws.integers(1, 4))))
        found.append(
            DataSet(
                name=f"generated{number}",
                channels=tuple(map(str, channels)),
                labels=int(draws.integers(2, 9)),
                sizes=sizes.astype(int).tolist(),
                spacings=spacings.tolist(),
                relative_size=float(draws.uniform(0.5, 1.0)),
            )
        )
    return found


def our_plan(data: DataSet, planner: str) -> Any:
    """Our plan of a generated set."""
    from medtool.core.plan import ChannelIntensities
    from medtool.data.fingerprint import Fingerprint
    from medtool.data.planning import make_plan

    fingerprint = Fingerprint(
        tuple(map(tuple, data.sizes)),
        tuple(map(tuple, data.spacings)),
        data.relative_size,
        (ChannelIntensities(0, 0, 1, -1, 1, -1, 1),) * len(data.channels),
    )
    return make_plan(fingerprint, channels=data.channels, label_count=data.labels, planner=planner)


def differences(ours: Any, theirs: Mapping[str, Any]) -> list[str]:
    """Where two plans of a data set are not the same, in words."""
    found = []
    if list(ours.axes_forward) != theirs["transpose_forward"]:
        found.append("order of axes")
    names = set(theirs["configurations"])
    if set(ours.configurations) != names:
        return [*found, f"configurations: {sorted(ours.configurations)}, {sorted(names)}"]
    for name, configuration in ours.configurations.items():
        wanted = theirs["configurations"][name]
        if "inherits_from" in wanted:
            continue
        found += [f"{name}: {what}" for what in _configuration_differences(configuration, wanted)]
    return found


def _configuration_differences(ours: Any, theirs: Mapping[str, Any]) -> list[str]:
    spacing = ours.spacing_mm[-len(theirs["spacing"]) :]
    size = ours.median_size_vox[-len(theirs["spacing"]) :]
    network = theirs["architecture"]["arch_kwargs"]
    blocks = network.get("n_conv_per_stage") or network["n_blocks_per_stage"]
    schemes = {
        "ct": "CTNormalization",
        "z-score": "ZScoreNormalization",
        "none": "NoNormalization",
    }
    pairs = {
        "patch": (ours.patch_size_vox, theirs["patch_size"]),
        "batch": (ours.batch_size, theirs["batch_size"]),
        "batch Dice": (ours.batch_dice, theirs["batch_dice"]),
        "features": (ours.network.features, network["features_per_stage"]),
        "strides": (ours.network.strides, network["strides"]),
        "kernels": (ours.network.kernel_sizes, network["kernel_sizes"]),
        "encoder": (ours.network.encoder_blocks, blocks),
        "decoder": (ours.network.decoder_convolutions, network["n_conv_per_stage_decoder"]),
        "masks": (ours.mask_for_normalisation, theirs["use_mask_for_norm"]),
        "normalisation": (
            [schemes[kind] for kind in ours.normalisation],
            theirs["normalization_schemes"],
        ),
        # Ours are whole; nnU-Net keeps the halves of medians.
        "median size": (
            bool(np.allclose(size, theirs["median_image_size_in_voxels"], atol=0.5)),
            True,
        ),
        "spacing": (
            bool(np.allclose(spacing, theirs["spacing"], rtol=0, atol=SPACING_TOLERANCE_MM)),
            True,
        ),
    }
    return [
        f"{what} {left} for {right}"
        for what, (left, right) in pairs.items()
        if json.loads(json.dumps(left)) != right
    ]


def generated_rows(python: Path | None, folder: Path, *, quick: bool) -> list[Row]:
    """One row a planner: the share of data sets that are planned alike."""
    sets = generated(QUICK_SETS if quick else SETS)
    write_sets(folder, [each.peer() for each in sets])
    for number, each in enumerate(sets, start=1):
        _write_fingerprint(folder / "preprocessed" / dataset_name(number, each.name), each)
    rows = []
    for planner, peer in PLANNERS.items():
        began = time.perf_counter()
        ours = [our_plan(each, planner) for each in sets]
        detail: dict[str, Any] = {
            "milliseconds_a_plan": 1000 * (time.perf_counter() - began) / len(sets)
        }
        if python is None:
            rows.append(
                Row(f"{planner}: generated data sets planned", len(ours), "sets", detail=detail)
            )
            continue
        theirs = ask(python, __file__, ["plans", peer, str(len(sets)), str(folder)], folder)
        differ = {
            each.name: found
            for each, plan, other in zip(sets, ours, theirs, strict=True)
            if (found := differences(plan, other))
        }
        what = f"{planner}: share of {len(sets)} generated data sets planned as nnU-Net does"
        rows.append(
            Row(what, 1 - len(differ) / len(sets), "", least=1, detail={**detail, "differ": differ})
        )
    return rows


def _write_fingerprint(folder: Path, data: DataSet) -> None:
    names = ("mean", "median", "std", "min", "max", "percentile_00_5", "percentile_99_5")
    document = {
        "spacings": data.spacings,
        "shapes_after_crop": data.sizes,
        "foreground_intensity_properties_per_channel": {
            str(channel): dict.fromkeys(names, 1.0) for channel in range(len(data.channels))
        },
        "median_relative_size_after_cropping": data.relative_size,
    }
    text = json.dumps(document)
    (folder / "dataset_fingerprint.json").write_text(text, encoding="utf-8")


def hippocampus_rows(python: Path, source: Path, folder: Path) -> list[Row]:
    """From files to plan, both sides; plans and pooled intensities compared."""
    from medtool.data.dataset_record import ImageReference
    from medtool.data.fingerprint import case_fingerprint, pooled
    from medtool.data.planning import make_plan
    from medtool.data.volumes import read_mask, read_volume

    images = sorted((source / "imagesTr").glob("*.nii.gz"))
    cases = {
        path.name.removesuffix(".nii.gz"): PeerCase((path,), source / "labelsTr" / path.name)
        for path in images
    }
    data = PeerSet(HIPPOCAMPUS, ("MRI",), 3, len(cases), cases)
    write_sets(folder, [data])
    known = []
    for case in cases.values():
        volume = read_volume(ImageReference(case.images[0]))
        label = read_mask(ImageReference(case.label)).array
        known.append(case_fingerprint(volume.array[None], label, volume.grid.spacing_mm[::-1]))
    fingerprint = pooled(known)
    words = ["fingerprint", dataset_name(1, HIPPOCAMPUS)]
    theirs = ask(python, __file__, words, folder)
    differ: dict[str, list[str]] = {}
    for planner, peer in PLANNERS.items():
        (wanted,) = ask(python, __file__, ["plans", peer, "1", str(folder)], folder)
        plan = make_plan(fingerprint, channels=data.channels, label_count=3, planner=planner)
        if found := differences(plan, wanted):
            differ[planner] = found
    share = 1 - len(differ) / len(PLANNERS)
    (ours,) = fingerprint.intensities
    off = max(
        abs(getattr(ours, name) - theirs[name]) / theirs["std"]
        for name in ("mean", "median", "std", "percentile_00_5", "percentile_99_5")
    )
    return [
        Row(
            f"{len(cases)} hippocampus scans: share of planners that plan as nnU-Net does",
            share,
            "",
            least=1,
            detail={"differ": differ},
        ),
        Row(
            "hippocampus: largest difference of pooled intensities, over their deviation",
            off,
            "",
            most=MOST_INTENSITY_DIFFERENCE,
        ),
    ]


def answer(words: list[str]) -> None:
    """Run by the peer's Python: print what nnU-Net says, as one line of JSON."""
    with contextlib.redirect_stdout(sys.stderr):
        found = (
            _peer_fingerprint(words[1]) if words[0] == "fingerprint" else _peer_plans(*words[1:])
        )
    print(json.dumps(found))


def _peer_fingerprint(name: str) -> dict[str, Any]:
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )

    found = DatasetFingerprintExtractor(name, num_processes=2).run(overwrite_existing=True)
    intensities: dict[str, Any]
    (intensities,) = found["foreground_intensity_properties_per_channel"].values()
    return intensities


def _peer_plans(planner: str, count: str, folder: str) -> list[Any]:
    import torch
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
        residual_encoder_unet_planners as residual,
    )

    # Planning builds every network that it tries; their weights are never looked at.
    torch.set_default_device("meta")
    kind = getattr(residual, planner, ExperimentPlanner)
    names = sorted(path.name for path in (Path(folder) / "raw").iterdir())
    for name in names[: int(count)]:
        kind(name).plan_experiment()
    identifier = kind(names[0]).plans_identifier
    places = [Path(folder) / "preprocessed" / name for name in names[: int(count)]]
    return [
        json.loads((place / f"{identifier}.json").read_text(encoding="utf-8")) for place in places
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--hippocampus", type=Path)


def main() -> int:
    """Plan, compare, print, keep."""
    if sys.argv[1:2] == ["--ask"]:
        answer(sys.argv[2:])
        return 0
    run = begin("nnunet_planning", __doc__, ("medtool", "numpy"), add_options)
    options = run.options
    python = None if options.quick else peer_python(options.peers)
    notes = [] if python else ["nnU-Net was not asked: it is not installed, or the run is quick."]
    with work_folder() as folder:
        rows = generated_rows(python, folder / "generated", quick=options.quick)
        if python is not None and options.hippocampus is not None:
            rows += hippocampus_rows(python, options.hippocampus, folder / "real")
    return run.finish(rows, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
