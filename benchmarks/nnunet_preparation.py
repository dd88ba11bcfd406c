"""Preparing a segmentation case beside nnU-Net: the same arrays, how fast, in how much memory.

    python benchmarks/nnunet_preparation.py [--peers DIR] [--hippocampus DIR] [--rounds 3]

``--peers`` is a virtual environment with nnunetv2 (benchmarks/requirements.txt; benchmarks/
.venv-peers is taken when it is there); without it only ours is run. Both sides prepare one
generated CT from file to file by the same plan, a fresh process a time, in turns; resampling is
also timed alone. Arrays are compared on generated data with odd spacings and on scans of
``--hippocampus``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nnunet_peer import PEERS, PeerCase, PeerSet, ask, dataset_name, peer_python, write_sets
from results import Row, begin, work_folder

LEAST_RESAMPLING, MOST_RESAMPLING_MEMORY = 8.0, 0.7
LEAST_PREPARATION, MOST_PREPARATION_MEMORY = 4.0, 0.5
MOST_DIFFERENCE = 1e-3
# Where two labels have equal scores rounding decides at nnU-Net, the nearer voxel with us.
MOST_OTHER_LABELS = 1e-3
RESAMPLED = ((400, 512, 512), (320, 410, 410))
QUICK_RESAMPLED = ((40, 52, 52), (32, 41, 41))
CT_SIZE, QUICK_CT_SIZE = (240, 512, 512), (24, 64, 64)
CT_SPACING_MM, TARGET_MM = (1.25, 0.75, 0.75), (2.0, 0.8, 0.8)
SCANS = 8


# --- data ---------------------------------------------------------------------------------------
def write_volume(path: Path, array: Any, spacing_mm: tuple[float, ...]) -> Path:
    """A NIfTI file of ``array`` (z, y, x)."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing([float(step) for step in spacing_mm[::-1]])
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))
    return path


def ct(size: tuple[int, ...], seed: int) -> tuple[Any, Any]:
    """A body in air with two organs in it, HU (int16), and their labels."""
    draws = np.random.default_rng(seed)
    z, y, x = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in size)]
    image = np.full(size, -1000, np.int16)
    image[np.broadcast_to((y / 0.8) ** 2 + (x / 0.9) ** 2 < 1, size)] = 20
    label = np.zeros(size, np.uint8)
    for value, (centre, radius) in enumerate(
        (((0, 0, -0.4), 0.3), ((0.2, 0.1, 0.4), 0.2)), start=1
    ):
        distance = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
        label[distance < radius**2] = value
        image[distance < radius**2] = 40 + 60 * value
    for plane in image:
        plane += draws.normal(0, 12, plane.shape).astype(np.int16)
    return image, label


def cut_out(size: tuple[int, ...], seed: int) -> tuple[list[Any], Any]:
    """Two channels that are zero outside a ball, with a hole, and labels of three classes."""
    draws = np.random.default_rng(seed)
    z, y, x = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in size)]
    distance = z**2 + y**2 + x**2
    body = (distance < 0.6) & (distance > 0.01)
    channels = [
        np.where(body, draws.normal(mean, 9, size), 0).astype(np.float32) for mean in (50, 900)
    ]
    label = np.where(distance < 0.3, 1 + (x > 0) + (y > 0.1), 0).astype(np.uint8)
    return channels, label


def odd_sets(folder: Path) -> list[PeerSet]:
    """Two small data sets: CT with thick slices along x, and two channels that are cropped."""
    cases: dict[str, dict[str, PeerCase]] = {"thick": {}, "cut": {}}
    draws = np.random.default_rng(8)
    for number in range(4):
        spacing = (1.1 + 0.2 * number, 0.9, 4.5)
        image, label = ct((50 + number, 60, 18), number)
        place = folder / f"thick{number}"
        cases["thick"][place.name] = PeerCase(
            (write_volume(place / "image.nii.gz", image, spacing),),
            write_volume(place / "label.nii.gz", label, spacing),
        )
        spacing = tuple(map(float, draws.uniform(0.7, 1.6, 3)))
        channels, label = cut_out((40, 52 + number, 45), number)
        place = folder / f"cut{number}"
        cases["cut"][place.name] = PeerCase(
            tuple(
                write_volume(place / f"image{channel}.nii.gz", values, spacing)
                for channel, values in enumerate(channels)
            ),
            write_volume(place / "label.nii.gz", label, spacing),
        )
    return [
        PeerSet("thick", ("CT",), 3, 4, cases["thick"]),
        PeerSet("cut", ("T1", "T2"), 4, 4, cases["cut"]),
    ]


def scans(source: Path) -> PeerSet:
    """Some real scans."""
    found = sorted((source / "imagesTr").glob("*.nii.gz"))[:SCANS]
    cases = {
        path.name.removesuffix(".nii.gz"): PeerCase((path,), source / "labelsTr" / path.name)
        for path in found
    }
    return PeerSet("hippocampus", ("MRI",), 3, len(cases), cases)


# --- ours ---------------------------------------------------------------------------------------
def read_case(case: PeerCase) -> tuple[Any, Any, Any]:
    """Channels, label and grid, by the product's readers."""
    from medtool.data.dataset_record import ImageReference
    from medtool.data.volumes import read_mask, read_volume

    volumes = [read_volume(ImageReference(path)) for path in case.images]
    image = volumes[0].array[None]
    if len(volumes) > 1:
        image = np.stack([volume.array for volume in volumes])
    return image, read_mask(ImageReference(case.label)).array, volumes[0].grid


def our_plan(data: PeerSet) -> Any:
    """Fingerprint and plan."""
    from medtool.data.fingerprint import case_fingerprint, pooled
    from medtool.data.planning import make_plan

    known = []
    for case in data.cases.values():
        image, label, grid = read_case(case)
        known.append(case_fingerprint(image, label, grid.spacing_mm[::-1]))
    return make_plan(pooled(known), channels=data.channels, label_count=data.labels)


def timed_plan() -> Any:
    """The plan that the timed case is prepared by."""
    from medtool.core.plan import ChannelIntensities
    from medtool.data.fingerprint import Fingerprint
    from medtool.data.planning import make_plan

    intensities = ChannelIntensities(*(TIMED_INTENSITIES[name] for name in INTENSITY_NAMES))
    fingerprint = Fingerprint((CT_SIZE,) * 20, (TARGET_MM,) * 20, 1.0, (intensities,))
    return make_plan(fingerprint, channels=("CT",), label_count=3)


INTENSITY_NAMES = ("mean", "median", "std", "min", "max", "percentile_00_5", "percentile_99_5")
TIMED_INTENSITIES = dict(
    zip(INTENSITY_NAMES, (110.0, 110.0, 30.0, 0.0, 220.0, 60.0, 180.0), strict=True)
)


def prepare_ours(folder: Path) -> Callable[[], object]:
    """File to file; what is called is timed."""
    from medtool.core.records import Prepared
    from medtool.data.case_file import to_bytes
    from medtool.data.segmentation_preparation import prepare_image

    plan = timed_plan()
    case = PeerCase((folder / "ct.nii.gz",), folder / "label.nii.gz")
    configuration = plan.configurations["3d_fullres"]

    def prepare() -> None:
        image, label, grid = read_case(case)
        arrays, facts = prepare_image(
            image, label, grid, plan, configuration, case_id="ct", classes=((1,), (2,))
        )
        del image, label
        with (folder / "ours.case").open("wb") as file:
            file.writelines(to_bytes(Prepared("ct", arrays, {"input": grid}, facts=facts)))

    return prepare


def resample_ours(volume: Any, size: tuple[int, ...]) -> Any:
    from medtool.data.resampling import resample

    return resample(volume, size)


# --- nnU-Net's ----------------------------------------------------------------------------------
def plan_peer(name: str, *, extract: bool) -> tuple[Any, Any]:
    """nnU-Net's plan of one of its folders, as its handler and as a document."""
    import torch
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
    from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner
    from nnunetv2.paths import nnUNet_preprocessed
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    if extract:
        fingerprint_extractor.DatasetFingerprintExtractor(name, num_processes=2).run()
    with torch.device("meta"):
        default_experiment_planner.ExperimentPlanner(name).plan_experiment()
    path = Path(str(nnUNet_preprocessed)) / name / "nnUNetPlans.json"
    return PlansManager(str(path)), json.loads(path.read_text(encoding="utf-8"))


def arrays_peer(name: str, folder: Path) -> Any:
    """Prepare every case of a data set in every configuration; gives the plan."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    manager, document = plan_peer(name, extract=True)
    dataset = json.loads((folder / "raw" / name / "dataset.json").read_text(encoding="utf-8"))
    for configuration, entry in document["configurations"].items():
        if "inherits_from" in entry:
            continue
        for case, files in dataset["dataset"].items():
            image, label, _ = DefaultPreprocessor(verbose=False).run_case(
                files["images"],
                files["label"],
                manager,
                manager.get_configuration(configuration),
                dataset,
            )
            np.savez(folder / f"{name}-{configuration}-{case}.npz", image=image, label=label)
    return document


def prepare_peer(name: str, folder: Path) -> Callable[[], object]:
    """File to file; what is called is timed."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    manager, _ = plan_peer(name, extract=False)
    dataset = json.loads((folder / "raw" / name / "dataset.json").read_text(encoding="utf-8"))
    configuration = manager.get_configuration("3d_fullres")
    files = [str(folder / "ct.nii.gz")], str(folder / "label.nii.gz")
    # It cannot write over what an earlier round left.
    for earlier in folder.glob("theirs*"):
        earlier.unlink()
    return lambda: DefaultPreprocessor(verbose=False).run_case_save(
        str(folder / "theirs"), *files, manager, configuration, dataset
    )


def resample_peer(volume: Any, size: tuple[int, ...]) -> Any:
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    even = (1.0, 1.0, 1.0)
    return resample_data_or_seg_to_shape(volume[None], size, even, even, force_separate_z=None)[0]


# --- both ---------------------------------------------------------------------------------------
def measured(action: Callable[[], object]) -> dict[str, float]:
    """Seconds, and how far memory rose above what was there before (MB)."""
    before = _status_kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM begins anew.
    began = time.perf_counter()
    action()
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "megabytes": (_status_kb("VmHWM") - before) / 1024}


def _status_kb(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise SystemExit(f"/proc/self/status has no {key}")


def answer(words: list[str]) -> None:
    """One question, answered in a process of its own as a line of JSON."""
    kind, side, folder = words[0], words[1], Path(words[2])
    with contextlib.redirect_stdout(sys.stderr):
        if kind == "arrays":
            found: Any = arrays_peer(words[3], folder)
        elif kind == "prepare":
            ours = side == "medtool"
            found = measured(prepare_ours(folder) if ours else prepare_peer(words[3], folder))
        else:
            found = _resampling(side, *(tuple(map(int, word.split(","))) for word in words[3:]))
    print(json.dumps(found))


def _resampling(side: str, old: tuple[int, ...], new: tuple[int, ...]) -> dict[str, float]:
    resampler = resample_ours if side == "medtool" else resample_peer
    draws = np.random.default_rng(0)
    # Imports and first calls are not what is measured.
    resampler(draws.standard_normal((8, 9, 10), dtype=np.float32), (9, 8, 7))

    def action() -> None:
        resampler(draws.standard_normal(old, dtype=np.float32), new)

    drawing = measured(lambda: draws.standard_normal(old, dtype=np.float32))
    found = measured(action)
    return {**found, "seconds": found["seconds"] - drawing["seconds"]}


def our_answer(words: list[str], *, threads: int | None = None) -> Any:
    """The same question to us, in a process of its own."""
    limit = [] if threads is None else [f"OPENBLAS_NUM_THREADS={threads}"]
    command = ["env", *limit, sys.executable, __file__, "--ask", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def in_turns(
    python: Path | None, kind: str, more: list[str], folder: Path, rounds: int
) -> dict[str, dict[str, float]]:
    """The best of each side; nnU-Net's only where it is there."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        answers = {
            "medtool": our_answer([kind, "medtool", str(folder), *more]),
            "medtool, one thread": our_answer([kind, "medtool", str(folder), *more], threads=1),
        }
        if python is not None:
            answers["nnU-Net"] = ask(
                python, __file__, [kind, "nnU-Net", str(folder), *more], folder
            )
        for side, found in answers.items():
            kept = best.setdefault(side, found)
            best[side] = {name: min(kept[name], found[name]) for name in found}
    return best


def rows_of(what: str, best: dict[str, dict[str, float]], least: float, most: float) -> list[Row]:
    """Seconds and memory, judged where there is a peer."""
    ours, alone, theirs = (best.get(s) for s in ("medtool", "medtool, one thread", "nnU-Net"))
    if ours is None or alone is None or theirs is None:
        seconds = best["medtool"]["seconds"]
        return [Row(f"{what}: medtool", seconds, "s", detail={"best": best})]
    return [
        Row(
            f"{what}: nnU-Net over medtool",
            theirs["seconds"] / ours["seconds"],
            least=least,
            detail={"best": best},
        ),
        Row(f"{what}: nnU-Net over medtool in one thread", theirs["seconds"] / alone["seconds"]),
        Row(
            f"{what}: peak memory over nnU-Net's",
            ours["megabytes"] / theirs["megabytes"],
            most=most,
        ),
    ]


def write_timed_case(folder: Path, size: tuple[int, ...]) -> str:
    """The CT that is timed, and what nnU-Net plans it by; gives the name of its data set."""
    image, label = ct(size, 0)
    write_volume(folder / "ct.nii.gz", image, CT_SPACING_MM)
    write_volume(folder / "label.nii.gz", label, CT_SPACING_MM)
    write_sets(folder, [PeerSet("timed", ("CT",), 3, 20)])
    name = dataset_name(1, "timed")
    document = {
        "spacings": [TARGET_MM] * 20,
        "shapes_after_crop": [CT_SIZE] * 20,
        "foreground_intensity_properties_per_channel": {"0": TIMED_INTENSITIES},
        "median_relative_size_after_cropping": 1.0,
    }
    place = folder / "preprocessed" / name / "dataset_fingerprint.json"
    place.write_text(json.dumps(document), encoding="utf-8")
    return name


def equality_rows(python: Path, sets: list[PeerSet], folder: Path) -> list[Row]:
    """Largest difference of the arrays, and the share of voxels with another label."""
    write_sets(folder, sets)
    rows = []
    for number, data in enumerate(sets, start=1):
        name = dataset_name(number, data.name)
        theirs = ask(python, __file__, ["arrays", "nnU-Net", str(folder), name], folder)
        off, others, voxels = _compared(data, name, theirs, folder)
        what = f"{data.name}: largest difference of {len(data.cases)} prepared images"
        rows.append(Row(what, off, "", most=MOST_DIFFERENCE))
        what = f"{data.name}: share of voxels with another label"
        rows.append(
            Row(what, others / voxels, "", most=MOST_OTHER_LABELS, detail={"voxels": voxels})
        )
    return rows


def _compared(data: PeerSet, name: str, theirs: Any, folder: Path) -> tuple[float, int, int]:
    from medtool.core.plan import ChannelIntensities
    from medtool.data.segmentation_preparation import prepare_image

    pooled = theirs["foreground_intensity_properties_per_channel"]
    # Theirs are sampled; what is compared is the preparation by one plan.
    known = [
        ChannelIntensities(*(pooled[str(n)][key] for key in INTENSITY_NAMES))
        for n in range(len(data.channels))
    ]
    plan = replace(our_plan(data), intensities=tuple(known))
    off, others, voxels = 0.0, 0, 0
    for case_id, case in data.cases.items():
        image, label, grid = read_case(case)
        for path in sorted(folder.glob(f"{name}-*-{case_id}.npz")):
            configuration = plan.configurations[path.stem.split("-")[1]]
            arrays, _ = prepare_image(image, label, grid, plan, configuration, case_id=case_id)
            with np.load(path) as kept:
                wanted = kept["label"][0]
                if not any(configuration.mask_for_normalisation):
                    # Ours tells outside from background only where it matters.
                    wanted = np.maximum(wanted, 0)
                off = max(off, float(np.abs(arrays["image"] - kept["image"]).max()))
                others += int((arrays["label"] != wanted).sum())
                voxels += wanted.size
    return off, others, voxels


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--hippocampus", type=Path)
    parser.add_argument("--rounds", type=int, default=3)


def main() -> int:
    """Compare, time, print, keep."""
    if sys.argv[1:2] == ["--ask"]:
        answer(sys.argv[2:])
        return 0
    run = begin("nnunet_preparation", __doc__, ("medtool", "numpy", "scipy", "blosc2"), add_options)
    options = run.options
    python = None if options.quick else peer_python(options.peers)
    notes = [] if python else ["nnU-Net was not asked: it is not installed, or the run is quick."]
    rounds = 1 if options.quick else options.rounds
    rows: list[Row] = []
    with work_folder() as folder:
        if python is not None:
            sets = odd_sets(folder / "files")
            sets += [scans(options.hippocampus)] if options.hippocampus is not None else []
            rows += equality_rows(python, sets, folder / "equal")
        sizes = QUICK_RESAMPLED if options.quick else RESAMPLED
        words = [",".join(map(str, size)) for size in sizes]
        best = in_turns(python, "resample", words, folder, rounds)
        rows += rows_of("resampling", best, LEAST_RESAMPLING, MOST_RESAMPLING_MEMORY)
        name = write_timed_case(folder / "timed", QUICK_CT_SIZE if options.quick else CT_SIZE)
        best = in_turns(python, "prepare", [name], folder / "timed", rounds)
        rows += rows_of("preparation", best, LEAST_PREPARATION, MOST_PREPARATION_MEMORY)
    return run.finish(rows, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
