"""What somebody has to know who uses an exported file without medtool: in words and in numbers.

``Task.model_card`` of each family; ``inputs`` and ``outputs`` are by name, ``preparation`` and
``answer`` are sentences in the order in which things are done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medtool.data.resampling import ANISOTROPY
from medtool.tasks.segmentation_labels import has_regions, output_ids, structures

if TYPE_CHECKING:
    from medtool.tasks.classifying_settings import ClassifyingSettings
    from medtool.tasks.planar_settings import PlanarSettings
    from medtool.tasks.prognosis_settings import PrognosisSettings
    from medtool.tasks.segmentation_settings import (
        SegmentationDataSection,
        SegmentationSettings,
    )

# Of numbers that say how values are scaled, the names in a preset.
CT_NUMBERS = ("mean", "std", "percentile_00_5", "percentile_99_5")


def segmentation_card(settings: SegmentationSettings) -> dict[str, Any]:
    """Of a segmentation of volumes, or of planes of volumes."""
    preparation, patch = settings.data.preparation, list(settings.model.patch_size_vox)
    channels = [_channel(settings, number) for number in range(len(settings.data.channels))]
    whole = [one["name"] for one in channels if not one["scaled_inside"]]
    return {
        "inputs": {
            "image": {
                "axes": ["images", "channels", *("zyx"[-len(patch) :])],
                "meaning": "windows of the prepared image",
                "channels": channels,
            }
        },
        "outputs": _label_outputs(settings.data),
        "preparation": [
            "Read the image as an array with the axes z, y, x"
            + ("," if preparation.orientation == "stored" else " turned to right, front, top,")
            + f" and put its axes in the order {list(preparation.axes_forward)}.",
            "Cut off what is zero in all channels at the borders.",
            *(
                f"Clip the channel {one['name']} to {one['clip'][0]:g} to {one['clip'][1]:g}."
                for one in channels
                if "clip" in one
            ),
            *(f"Scale the channel {name} by the image itself, as it says." for name in whole),
            f"Resample to a spacing of {_spaced(preparation.spacing_mm)} mm by cubic splines; where"
            f" an axis is over {ANISOTROPY:g} times as coarse as another, along it by the nearest.",
            f"Cut windows of {_sized(patch)} voxels; beyond the image stands what is scaled to 0.",
        ],
        "grid": {
            "spacing_mm": list(preparation.spacing_mm),
            "axes_forward": list(preparation.axes_forward),
            "window_vox": patch,
        },
        "answer": [
            f"Windows overlap: from one to the next {settings.infer.step:g} of a window.",
            "Logits of windows are averaged, weighted by a Gaussian of 1/8 of a window.",
            "Logits are resampled to the spacing of the input, linearly.",
            _decided(settings.data, 0.5),
        ],
        "labels": _labels(settings.data),
    }


def _channel(settings: SegmentationSettings, number: int) -> dict[str, Any]:
    """How the values of a channel are scaled, and by whom."""
    preparation = settings.data.preparation
    scheme, name = preparation.normalisation[number], settings.data.channels[number]
    inside = scheme in ("ct", "rgb-0-1", "none")
    units = {"ct": "HU", "rgb-0-1": "0 to 255", "none": "as in the file"}
    card: dict[str, Any] = {
        "name": name,
        "normalisation": scheme,
        "scaled_inside": inside,
        "unit": units.get(scheme, "scaled by the image itself"),
    }
    if scheme == "ct":
        pooled = preparation.intensities[number].model_dump()
        card |= {key: pooled[key] for key in CT_NUMBERS}
        card["clip"] = [card["percentile_00_5"], card["percentile_99_5"]]
    elif scheme == "z-score":
        of_mask = preparation.mask_for_normalisation[number]
        card["how"] = "(value - mean) / standard deviation of " + (
            "what is not zero" if of_mask else "the whole image"
        )
    elif scheme == "rescale-0-1":
        card["how"] = "(value - smallest) / (largest - smallest) of the whole image"
    return card


def _label_outputs(data: SegmentationDataSection) -> dict[str, Any]:
    names = [*([] if has_regions(data) else ["background"]), *structures(data)]
    return {
        "logits": {"meaning": "averaged where windows overlap", "of": names},
        "probabilities": {
            "meaning": "0 to 1, of each place",
            "activation": "sigmoid" if has_regions(data) else "softmax",
            "of": names,
        },
    }


def _labels(data: SegmentationDataSection) -> dict[str, Any]:
    return {
        "ids": {name: list(ids) for name, ids in structures(data).items()},
        "written": list(output_ids(data)),
    }


def _decided(data: SegmentationDataSection, threshold: float) -> str:
    ids = list(output_ids(data))
    if has_regions(data):
        return (
            f"Where the probability of a region is over {threshold:g}, its id of {ids} is written,"
            " later ones over earlier ones."
        )
    return f"Each place gets the id, of {ids}, of the output that is the largest there."


def _spaced(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _sized(values: Sequence[int]) -> str:
    return " x ".join(map(str, values))


def classifying_card(settings: ClassifyingSettings) -> dict[str, Any]:
    """As of a segmentation, with the classes."""
    card, classes = segmentation_card(settings), list(settings.data.classes)
    outputs = {
        "class_logits": {"meaning": "of what a window shows", "of": classes},
        "class_probabilities": {"meaning": "0 to 1", "activation": "softmax", "of": classes},
    }
    answer = (
        "The class is that of one window around the largest piece of the lesion in the mask; "
        "without one around all labels, else in the middle."
    )
    return {
        **card,
        "outputs": {**card["outputs"], **outputs},
        "answer": [*card["answer"], answer],
        "classes": classes,
    }


def planar_card(settings: PlanarSettings) -> dict[str, Any]:
    """Of a segmentation slice by slice."""
    preparation, infer = settings.data.preparation, settings.infer
    rows, columns = preparation.size_px
    half = preparation.window_width_hu / 2
    ends = {"8-bit": (0.0, 255.0)}.get(
        preparation.intensity,
        (preparation.window_level_hu - half, preparation.window_level_hu + half),
    )
    fixed = preparation.intensity in ("8-bit", "window")
    scaling = (
        f"Pixels are {'grey values' if preparation.intensity == '8-bit' else 'HU'}: the file makes"
        f" {ends[0]:g} to {ends[1]:g} to 0 to 1 and clips what is beyond."
        if fixed
        else f"Percentiles {preparation.low_percentile:g} and {preparation.high_percentile:g} of"
        " all pixels of the case become 0 and 1; clip what is beyond."
    )
    colour = settings.model.input_channels
    return {
        "inputs": {
            "image": {
                "axes": ["images", "channels", "rows", "columns"],
                "meaning": "whole slices",
                "channels": ["red", "green", "blue"] if colour == 3 else ["grey"],
                "unit": {"8-bit": "0 to 255", "window": "HU"}.get(
                    preparation.intensity, "0 to 1 between two percentiles"
                ),
                "scaled_inside": fixed,
                **({"becomes_0_and_1": list(ends)} if fixed else {}),
            }
        },
        "outputs": _label_outputs(settings.data),
        "preparation": [
            scaling,
            f"Resize to {rows} x {columns} pixels, whatever the aspect: by means of areas where it"
            " shrinks both ways, else linearly.",
            *(["Repeat grey images in all three channels."] if colour == 3 else []),
        ],
        "grid": {"size_px": [rows, columns]},
        "answer": [
            "Logits are resized to the rows and columns of the input, linearly.",
            _decided(settings.data, infer.threshold),
        ],
        "threshold": infer.threshold,
        "labels": _labels(settings.data),
    }


def bag_card(model: Any, threshold_of: str, size_px: int, *, normalised: bool) -> dict[str, Any]:
    """Of a classification of studies; the plugin says how a study becomes slices."""
    pooled = {
        "max": "the largest probability of a slice",
        "mean": "the mean probability of the slices",
        "top-k": f"the mean of the largest {model.top_share:g} of the probabilities",
        "lse": f"log(mean(exp(r p))) / r of the probabilities p, r = {model.lse_sharpness:g}",
        "noisy-or": "1 - product of (1 - p)",
        "attention": "read from features weighted by attention",
    }[model.pooling]
    axes = ["slices", *([] if normalised else ["channels"]), "rows", "columns"]
    inputs: dict[str, Any] = {
        "slices": {"axes": axes, "meaning": "all used slices of one study, in order"}
    }
    if normalised:
        inputs["mask"] = {"axes": axes, "meaning": "1 inside, 0 outside of what is normalised"}
    outputs: dict[str, Any] = {
        "slice_logits": {"meaning": "log odds of each slice"},
        "logit": {"meaning": "log odds of the study"},
        "probability": {"meaning": "of the study, 0 to 1", "activation": "sigmoid"},
    }
    if model.pooling == "attention":
        inputs["before"] = {"meaning": "'after' of the call with earlier slices; zeros at first"}
        outputs["attention_scores"] = {"meaning": "their softmax is what each slice counts"}
        outputs["after"] = {"meaning": "'before' of the call with further slices"}
    return {
        "inputs": inputs,
        "outputs": outputs,
        "grid": {"size_px": [size_px, size_px]},
        "preparation": [],
        "answer": [
            f"The study is {pooled}.",
            f"It is positive where its probability is at least {threshold_of}.",
        ],
        "classes": ["negative", "positive"],
    }


def prognosis_card(settings: PrognosisSettings) -> dict[str, Any]:
    """Of outlines and a risk from PET and CT."""
    preparation, model = settings.data.preparation, settings.model
    low, high = preparation.ct_window_hu
    step = f"{preparation.slice_mm:g} mm" if preparation.slice_mm else "that of the PET's slices"
    grid = (
        f"{_sized(preparation.size_px)} pixels of the field that both share, from slice to slice"
        f" {step}"
        if preparation.size_px
        else f"voxels of {_spaced(preparation.spacing_mm)} mm (x, y, z) over the field of both"
    )
    passes = settings.infer.passes
    inputs: dict[str, Any] = {
        "image": {
            "meaning": "slices, or patches, of one patient",
            "channels": _pet_ct_channels(model.neighbour_slices),
        },
        "field_ml": {"meaning": "volume of the whole prepared image", "unit": "mL"},
    }
    if model.known_covariates:
        inputs["covariates"] = {"columns": [one.model_dump() for one in model.known_covariates]}
    inputs["before"] = {"meaning": "'after' of the call with earlier images; zeros at first"}
    if passes:
        share = f"0, or 1 / (1 - {model.dropout:g}) for a share of {1 - model.dropout:g}"
        inputs["masks"] = {"meaning": f"one row a pass: {share}; ones drop nothing"}
        inputs["head_masks"] = {
            "meaning": f"the same for the head, with a share of {1 - model.head_dropout:g} kept"
        }
    return {
        "inputs": inputs,
        "outputs": {
            **_label_outputs(settings.data),
            "risks": {"meaning": "log hazard ratio of the patient by pass, higher is worse"},
            "after": {"meaning": "'before' of the call with further images"},
        },
        "preparation": [
            "Make SUV (by body weight, g/mL) of the PET and HU of the CT.",
            f"Resample both to one grid: {grid}.",
            f"Clip SUV to 0 to {preparation.suv_maximum:g}.",
            f"Make {low:g} to {high:g} HU to -1 to 1 and clip what is beyond.",
        ],
        "scaled_inside": {"suv_that_becomes_1": model.suv_scale},
        "grid": {
            "size_px": list(preparation.size_px),
            "slice_mm": preparation.slice_mm,
            "spacing_mm": list(preparation.spacing_mm),
            "window_vox": list(model.patch_size_vox),
        },
        "answer": [
            f"Probabilities are the mean of {passes} passes." if passes else "There is one pass.",
            "They are resampled to the grid of the answer.",
            _decided(settings.data, 0.5),
            "The risk is that after the last image; of passes their mean.",
        ],
        "passes": passes,
        "labels": _labels(settings.data),
    }


def _pet_ct_channels(neighbours: int) -> list[Mapping[str, Any]]:
    planes = range(-neighbours, neighbours + 1)
    return [
        {"name": name, "slice": plane, "unit": unit}
        for name, unit in (("pet", "SUV, g/mL"), ("ct", "-1 to 1 over the window"))
        for plane in planes
    ]
