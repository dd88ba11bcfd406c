"""Whether a model that nnU-Net trained answers here as there, and one exported from here there.

    python benchmarks/nnunet_models.py [--peers DIR]

nnU-Net plans and trains small networks for some steps on generated data sets: plain in 3D, residual
in 3D at a low resolution, residual in 2D with two channels, regions and an ignore label, plain in
3D on oblique images that its reader turns first (as TotalSegmentator's does); two folds each. They
are imported, both sides answer for the same files, and what is exported from the import answers
through nnUNetv2_predict. ``--peers`` is a virtual environment with nnunetv2
(benchmarks/requirements.txt; benchmarks/.venv-peers is taken when it is there).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nnunet_peer import FOLDERS, PEERS, ask, dataset_name, peer_python
from results import Row, begin, work_folder

CASES, TEST_CASES = 8, 1
FOLDS = (0, 1)
# Steps of each training: enough that answers are no noise.
STEPS = 20
# nnU-Net's sums are in 16 bits: of two labels that are nearly as likely it may take the other. At
# the corners of an image, where its weights are the smallest numbers of that type, its logits are
# rounded to whole numbers.
MOST_SOFTMAX_DIFFERENCE = 1e-4
LEAST_SAME_SHARE = 0.9999


@dataclass(frozen=True)
class Model:
    """What is trained; ``memory_gb`` of the planner keeps patches smaller than images."""

    name: str
    planner: str
    configuration: str
    memory_gb: float
    channels: tuple[str, ...]
    labels: dict[str, Any]
    regions_order: tuple[int, ...] = ()
    reader: str = "SimpleITKIO"
    # Of the images: columns in LPS, row by row.
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


PLAIN_LABELS = {"background": 0, "organ": 1, "nodule": 2}
MODELS = (
    Model("plain in 3D", "ExperimentPlanner", "3d_fullres", 0.25, ("MR",), PLAIN_LABELS),
    Model(
        "residual in 3D, low resolution, CT",
        "nnUNetPlannerResEncM",
        "3d_lowres",
        0.25,
        ("CT",),
        PLAIN_LABELS,
    ),
    Model(
        "residual in 2D, regions, two channels",
        "nnUNetPlannerResEncM",
        "2d",
        0.1,
        ("MR", "noNorm"),
        {"background": 0, "whole": [1, 2], "nodule": [2], "ignore": 3},
        (1, 2),
    ),
    Model(
        "plain in 3D, turned by its reader",
        "ExperimentPlanner",
        "3d_fullres",
        0.25,
        ("MR",),
        PLAIN_LABELS,
        reader="NibabelIOWithReorient",
        # x runs to the Anterior, y to the Left, z to the Inferior, tilted by 37 degrees (3-4-5).
        direction=(0.0, 1.0, 0.0, -0.8, 0.0, 0.6, -0.6, 0.0, -0.8),
    ),
)


def write_raw(folder: Path, number: int, model: Model) -> Path:
    """The data set of a model in nnU-Net's raw folder; the last cases have no mask."""
    from medtool_segment.demo import draw_case

    from medtool.data.nifti_writer import write_nifti

    place = folder / "raw" / dataset_name(number, "Made")
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (place / name).mkdir(parents=True)
    for case in range(CASES + TEST_CASES):
        image, mask, straight = draw_case(number, case)
        grid = replace(straight, direction=model.direction)
        images = place / ("imagesTr" if case < CASES else "imagesTs")
        for channel in range(len(model.channels)):
            values = image if channel == 0 else np.sqrt(np.abs(image))
            write_nifti(images / f"case{case}_{channel:04d}.nii.gz", values, grid)
        if "ignore" in model.labels:
            mask[: len(mask) // 4] = model.labels["ignore"]
        if case < CASES:
            write_nifti(place / "labelsTr" / f"case{case}.nii.gz", mask, grid)
    document = {
        "channel_names": {str(n): name for n, name in enumerate(model.channels)},
        "labels": model.labels,
        "numTraining": CASES,
        "file_ending": ".nii.gz",
        "synthetic": True,
        "overwrite_image_reader_writer": model.reader,
        **({"regions_class_order": list(model.regions_order)} if model.regions_order else {}),
    }
    (place / "dataset.json").write_text(json.dumps(document), encoding="utf-8")
    return place


def rows_of(model: Model, python: Path, folder: Path) -> list[Row]:
    """Train there, answer on both sides, back and answer there."""
    from medtool.verbs.import_model import ImportOptions, import_model
    from medtool.verbs.infer import InferOptions, infer
    from medtool.verbs.options import RunOptions

    place = write_raw(folder, 1, model)
    words = ["train", str(folder), model.planner, model.configuration, str(model.memory_gb)]
    trained = Path(ask(python, __file__, words, folder))
    sources = place / "imagesTs"
    there = folder / "there"
    ask(python, __file__, ["predict", str(trained), str(sources), str(there)], folder)
    checkpoint = folder / "imported.safetensors"
    import_model(ImportOptions("nnunet", trained, checkpoint))
    here = folder / "here"
    run = RunOptions(device="cpu", precision="32", workers=0)
    infer(InferOptions((sources,), checkpoint, here, allow_demo=True, run=run))
    names = sorted(path.name for path in there.glob("case*.nii.gz"))
    exact = [_same_share(there / "exact" / name, here / "masks" / name) for name in names]
    usual = [_same_share(there / name, here / "masks" / name) for name in names]
    labels = len(np.unique(_voxels(there / names[0])))
    rows = [
        Row(
            f"{model.name}: largest difference of the softmax, nnU-Net's sums in 32 bits",
            _softmax_difference(checkpoint, there, "exact"),
            "",
            most=MOST_SOFTMAX_DIFFERENCE,
        ),
        Row(
            f"{model.name}: largest difference of the softmax, nnU-Net as it is",
            _softmax_difference(checkpoint, there, "logits"),
            "",
        ),
        Row(
            f"{model.name}: share of voxels with nnU-Net's label, its sums in 32 bits",
            min(exact),
            "",
            least=1,
            detail={"cases": len(names), "labels": labels},
        ),
        Row(
            f"{model.name}: share of voxels with nnU-Net's label, as it is",
            min(usual),
            "",
            least=LEAST_SAME_SHARE,
        ),
    ]
    back = _exported(checkpoint, python, sources, folder)
    again = [_same_share(back / name, there / name) for name in names]
    rows.append(
        Row(
            f"{model.name}: exported again, share of voxels that nnUNetv2_predict labels alike",
            min(again),
            "",
            least=1,
        )
    )
    return rows


def _exported(checkpoint: Path, python: Path, sources: Path, folder: Path) -> Path:
    """What nnU-Net's own command answers with the checkpoint, exported."""
    from medtool.verbs.export_model import ExportOptions, export_model

    written = export_model(ExportOptions("nnunet", checkpoint, folder / "exported"))
    answers = folder / "back"
    places = {**FOLDERS, "nnUNet_results": "exported"}
    first, *words = shlex.split(written.command)
    known = {"INPUT": str(sources), "OUTPUT": str(answers)}
    words = [known.get(word, word) for word in words]
    done = subprocess.run(
        [
            *("env", *(f"{name}={folder / place}" for name, place in places.items()), first),
            str(python.with_name(words[0])),
            *words[1:],
            *("-device", "cpu", "-npp", "1", "-nps", "1"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"nnUNetv2_predict ended with {done.returncode}: {done.stderr[-2000:]}")
    return answers


def _voxels(path: Path) -> Any:
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def _same_share(one: Path, other: Path) -> float:
    first, second = _voxels(one), _voxels(other)
    return float((first == second).mean())


def _probabilities(logits: Any, *, regions: bool) -> Any:
    from scipy.special import expit, softmax

    return expit(logits) if regions else softmax(logits, axis=0)


def _softmax_difference(checkpoint: Path, there: Path, kind: str) -> float:
    """On nnU-Net's own prepared image: what both networks make of it, window by window."""
    from medtool.predict.model import load_model
    from medtool.predict.sliding_window import Windows, sliding_window, whole_logits
    from medtool.predict.together import MeanNetwork

    model = load_model(checkpoint, device="cpu", precision="32")
    settings = model.members[0].task.settings
    network = MeanNetwork(member.network for member in model.members)
    regions = bool(settings.data.regions_order)
    largest = 0.0
    for file in sorted(there.glob("prepared_*.npy")):
        windows = Windows(tuple(settings.model.patch_size_vox))
        slabs = sliding_window(
            network, np.load(file), windows, device=model.device, arithmetic=model.autocast
        )
        ours = _probabilities(whole_logits(slabs), regions=regions)
        theirs = np.load(there / file.name.replace("prepared", kind)).astype(np.float32)
        difference = np.abs(ours - _probabilities(theirs, regions=regions))
        largest = max(largest, float(difference.max()))
    return largest


# --- nnU-Net's side -----------------------------------------------------------------------
def answer(words: list[str]) -> None:
    """Run by the peer's Python: print what nnU-Net says, as one line of JSON."""
    with contextlib.redirect_stdout(sys.stderr):
        found = _peer_train(*words[1:]) if words[0] == "train" else _peer_predict(*words[1:])
    print(json.dumps(found))


def _peer_train(folder: str, planner: str, configuration: str, memory_gb: str) -> str:
    """Plan, prepare and train two folds for some steps; gives the model's folder."""
    import torch
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(0)
    api.extract_fingerprints([1], num_processes=2, check_dataset_integrity=True)
    identifier = api.plan_experiments(
        [1], planner, gpu_memory_target_in_gb=float(memory_gb), overwrite_plans_name="smallPlans"
    )
    base = Path(folder) / "preprocessed" / dataset_name(1, "Made")
    path = base / f"{identifier}.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    _make_small(plans, configuration)
    path.write_text(json.dumps(plans), encoding="utf-8")
    api.preprocess([1], identifier, (configuration,), num_processes=(2,))
    dataset = json.loads((base / "dataset.json").read_text(encoding="utf-8"))
    for fold in FOLDS:
        given = {**plans, "continue_training": False}
        trainer = nnUNetTrainer(given, configuration, fold, dataset, torch.device("cpu"))
        trainer.num_epochs, trainer.num_val_iterations_per_epoch = 2, 2
        trainer.num_iterations_per_epoch = STEPS // 2
        trainer.run_training()
    return str(Path(trainer.output_folder).parent)


def _make_small(plans: dict[str, Any], configuration: str) -> None:
    """Fewer features, so that steps take little; a low resolution where none was planned."""
    known = plans["configurations"]
    if configuration not in known:
        low = json.loads(json.dumps(known["3d_fullres"]))
        low["spacing"] = [value * 1.3 for value in low["spacing"]]
        low["data_identifier"] = "smallPlans_" + configuration
        known[configuration] = low
    network = known[configuration]["architecture"]["arch_kwargs"]
    network["features_per_stage"] = [n // 4 for n in network["features_per_stage"]]


def _peer_predict(model: str, sources: str, output: str) -> bool:
    """Masks of all cases, twice; prepared images and their logits."""
    import torch
    from nnunetv2.inference import predict_from_raw_data as prediction
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    predictor = prediction.nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(model, use_folds=None)
    files = sorted(Path(sources).glob("*_0000.nii.gz"))
    ending = predictor.dataset_json["file_ending"]
    channels = len(predictor.dataset_json["channel_names"])
    cases = [
        [str(file).replace("_0000", f"_{channel:04d}") for channel in range(channels)]
        for file in files
    ]
    predictor.predict_from_files(
        sources, output, num_processes_preprocessing=1, num_processes_segmentation_export=1
    )
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    for number, case in enumerate(cases):
        data, _, _ = preprocessor.run_case(
            case,
            None,
            predictor.plans_manager,
            predictor.configuration_manager,
            predictor.dataset_json,
        )
        data = np.asarray(data)
        np.save(Path(output) / f"prepared_{number}.npy", data)
        logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
        np.save(Path(output) / f"logits_{number}.npy", logits.numpy())

    # The same once more with nnU-Net's own weights, but sums in 32 bits where it has 16.
    @functools.lru_cache
    def gaussian(*sizes: Any, **options: Any) -> Any:
        return compute_gaussian(*sizes, **options).float()

    prediction.compute_gaussian, torch.half = gaussian, torch.float32
    for file in sorted(Path(output).glob("prepared_*.npy")):
        logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(np.load(file)))
        np.save(file.with_name(file.name.replace("prepared", "exact")), logits.numpy())
    for case in cases:
        name = Path(case[0]).name.removesuffix("_0000" + ending)
        exact = Path(output) / "exact"
        exact.mkdir(exist_ok=True)
        predictor.predict_from_files_sequential([case], [str(exact / name)])
    return True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", type=Path, default=PEERS)


def main() -> int:
    """Train there, answer here and there, compare, print, keep."""
    if sys.argv[1:2] == ["--ask"]:
        answer(sys.argv[2:])
        return 0
    run = begin("nnunet_models", __doc__, ("medtool", "torch", "numpy"), add_options)
    python = None if run.options.quick else peer_python(run.options.peers)
    if python is None:
        # Only that the data sets can be written.
        with work_folder() as folder:
            written = [write_raw(folder / each.name, 1, each) for each in MODELS[:1]]
        rows = [Row("data sets written", len(written), "sets")]
        note = "nnU-Net was not asked: it is not installed, or the run is quick."
        return run.finish(rows, notes=[note])
    rows = []
    with work_folder() as folder:
        for model in MODELS:
            rows += rows_of(model, python, folder / model.name.replace(" ", "_"))
    return run.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
