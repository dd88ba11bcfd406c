"""The classes of cases: where their names come from, and how much each one weighs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from medtool.core.errors import LabelsError
from medtool.core.names import nearest_name, safe_file_stem
from medtool.core.records import Case, Cohort, Finding
from medtool.data.cohort import CLASSES
from medtool.data.dataset_record import BACKGROUND
from medtool.data.labels import MOST_CLASSES, class_names, normal_value
from medtool.data.layout_files import read_from_names
from medtool.data.matching import shown, with_class
from medtool.tasks.classifying_settings import ClassifyingDataSection, ClassifyingSettings
from medtool.tasks.segmentation_labels import has_regions, structures

# Under this name the layouts of data sets give the class of a case, as text.
CLASS_COVARIATE = "class"
# What chooses the checkpoint: with classes, and without.
BALANCED, WITHOUT_CLASSES = "dice_and_f1", "dice"
# Volumes under which pieces of a lesion may be removed: balls of 4.6, 7.3 and 9.8 mm.
LEAST_LESION_ML = (0.05, 0.2, 0.5)
HEAD_OFF = (
    "no case has a class: there is neither a table of labels, nor a column label in a manifest, "
    "nor data.class_pattern"
)


def probability_column(name: str) -> str:
    """The column of a class's probability in predictions.csv."""
    return f"probability_{safe_file_stem(name).lower()}"


# --- names --------------------------------------------------------------------------------
def with_classes(cohort: Cohort, data: ClassifyingDataSection) -> Cohort:
    """Cases with the class that a manifest or their name gives; the intake has its names.

    Unchanged where neither says anything. Raises LabelsError for a text that is no class, and for
    a pattern that fits no case while classes have no names yet.
    """
    texts, findings = _texts(cohort.cases, data)
    found = class_names(texts.values())
    if not found:
        return replace(cohort, findings=(*cohort.findings, *findings))
    classes = tuple(data.classes) or found
    number = {normal_value(name): place for place, name in enumerate(classes)}
    _refuse_strange(texts, classes)
    cases = tuple(
        with_class(case, number[normal_value(text)], classes)
        if (text := texts[case.case_id])
        else case
        for case in cohort.cases
    )
    intake = {**cohort.intake, CLASSES: list(classes)}
    return replace(cohort, cases=cases, intake=intake, findings=(*cohort.findings, *findings))


def _texts(
    cases: Sequence[Case], data: ClassifyingDataSection
) -> tuple[dict[str, str], tuple[Finding, ...]]:
    """Of each case what is said of its class, "" where nothing is: the manifest comes first."""
    column = (data.label_column or "").casefold()
    listed = {
        case.case_id: case.covariates.get(column, "") or case.covariates.get(CLASS_COVARIATE, "")
        for case in cases
    }
    if not data.class_pattern or not cases:
        return listed, ()
    try:
        named, findings = read_from_names(list(listed), data.class_pattern, "label")
    except LabelsError as error:
        if not data.classes:
            raise
        # A model answers for cases of other names as well.
        return listed, (Finding("label-by-pattern", f"{error.what} {error.met}", "warning"),)
    return {case: text or named.get(case, "") for case, text in listed.items()}, findings


def _refuse_strange(texts: Mapping[str, str], classes: Sequence[str]) -> None:
    known = {normal_value(name) for name in classes}
    strange = {
        case: text for case, text in texts.items() if text and normal_value(text) not in known
    }
    if strange:
        raise LabelsError(
            "Some cases are of none of the classes.",
            met=shown([f"{case} '{text}'" for case, text in strange.items()]),
            wanted="one of: " + ", ".join(classes),
            nearest=nearest_name(next(iter(strange.values())), classes),
            how="name all classes in data.classes, or correct them where the cases are listed.",
        )
    if len(classes) > MOST_CLASSES:
        raise LabelsError(
            "There are too many classes.",
            met=shown(classes),
            wanted=f"at most {MOST_CLASSES}",
            how="set data.label_column or data.class_pattern to what tells classes apart.",
        )


def known_classes(settings: ClassifyingSettings, intake: Mapping[str, Any]) -> ClassifyingSettings:
    """``settings`` with the names of the classes, where they have none and the data have some."""
    if settings.data.classes or not intake.get(CLASSES):
        return settings
    data = settings.data.model_copy(update={"classes": list(intake[CLASSES])})
    return settings.model_copy(update={"data": data})


# --- weights ------------------------------------------------------------------------------
def planned_classes(settings: ClassifyingSettings, cases: Sequence[Case]) -> ClassifyingSettings:
    """Settings with a weight for each class, counted over ``cases``; without classes the metric
    that chooses is the Dice alone. Raises LabelsError where the weights do not fit the classes.
    """
    from medtool.nets.classification_losses import class_weights

    train, classes = settings.train, settings.data.classes
    if not classes:
        if settings.metrics.primary != BALANCED:
            return settings
        metrics = settings.metrics.model_copy(update={"primary": WITHOUT_CLASSES})
        return settings.model_copy(update={"metrics": metrics})
    if train.class_weights:
        if len(train.class_weights) != len(classes):
            raise LabelsError(
                "There is not one weight for each class.",
                where="train.class_weights",
                met=f"{len(train.class_weights)} weights, {len(classes)} classes",
                wanted=f"weights of {', '.join(classes)}",
            )
        return settings
    weights = class_weights(
        list(counts(cases, classes).values()),
        power=train.class_weight_power,
        added=train.class_weight_added,
    )
    rounded = [round(float(weight), 6) for weight in weights]
    return settings.model_copy(
        update={"train": train.model_copy(update={"class_weights": rounded})}
    )


def planned_pieces(settings: ClassifyingSettings) -> ClassifyingSettings:
    """What becomes of small pieces of the lesion, where the preset leaves that open.

    A removed piece becomes the organ around it, or it would be a hole; least volumes are tried at
    the end. Raises LabelsError where no label has the name of the lesion.
    """
    lesion, organ, infer = lesion_name(settings.data), organ_name(settings.data), settings.infer
    becomes = {lesion: organ} if organ else {}
    return settings.model_copy(
        update={
            "infer": infer.model_copy(
                update={
                    "removed_becomes": {**becomes, **infer.removed_becomes},
                    "least_volumes_ml": {lesion: [*LEAST_LESION_ML], **infer.least_volumes_ml},
                }
            )
        }
    )


def counts(cases: Sequence[Case], classes: Sequence[str]) -> dict[str, int]:
    """Cases of each class, by its name."""
    found = Counter(case.label for case in cases if case.label is not None)
    return {name: found[float(number)] for number, name in enumerate(classes)}


def decisions(settings: ClassifyingSettings, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """What was decided of lesion and classes and why, in the form of a plan's decisions."""
    classes, pieces = settings.data.classes, _decided_pieces(settings)
    if not classes:
        return [pieces, {"what": "classification head", "value": "off", "why": HEAD_OFF}]
    seen = counts(cases, classes)
    said = ", ".join(f"{count} {name}" for name, count in seen.items())
    without = len(cases) - sum(seen.values())
    said += f"; {without} cases without a class learn the masks only" if without else ""
    model, train = settings.model, settings.train
    source = (
        f"a second decoder of {model.class_decoder_levels} levels"
        if model.class_decoder_levels
        else "the bottleneck"
    )
    return [
        pieces,
        {
            "what": "classification head",
            "value": ", ".join(classes),
            "why": f"classes of the cases ({said}); pools {source} ({model.pooling})",
        },
        {
            "what": "class weights",
            "value": train.class_weights,
            "why": "(cases / cases of the class) ** "
            f"{train.class_weight_power:g}, mean 1 over the cases, unless the preset gives them",
        },
    ]


def _decided_pieces(settings: ClassifyingSettings) -> dict[str, Any]:
    lesion, infer = lesion_name(settings.data), settings.infer
    return {
        "what": f"pieces of {lesion} under so many mL",
        "value": infer.least_volumes_ml.get(lesion, []),
        "why": "removed where that helps on the selection part; they become "
        + infer.removed_becomes.get(lesion, BACKGROUND),
    }


# --- labels of the masks ------------------------------------------------------------------
def lesion_name(data: ClassifyingDataSection) -> str:
    """The label that is classified: the one that is named, else the last. Raises LabelsError."""
    known = structures(data)
    name = data.lesion or (list(known) or [""])[-1]
    if name not in known:
        raise LabelsError(
            "The label of the lesion is not among the labels.",
            where="data.lesion",
            met=name,
            wanted="one of: " + ", ".join(known),
            nearest=nearest_name(name, known),
        )
    return name


def lesion_ids(data: ClassifyingDataSection) -> tuple[int, ...]:
    """Ids of the label that is classified. Raises LabelsError where no label has its name."""
    return structures(data)[lesion_name(data)]


def organ_name(data: ClassifyingDataSection) -> str:
    """The label in which the lesion lies: the smallest region around it, or the only other label.

    "" where that is not one.
    """
    known, lesion = structures(data), lesion_name(data)
    others = {name: set(ids) for name, ids in known.items() if name != lesion}
    if has_regions(data):
        around = {n: ids for n, ids in others.items() if ids > set(known[lesion])}
        return min(around, key=lambda name: len(around[name]), default="")
    return next(iter(others)) if len(others) == 1 else ""


def organ_ids(data: ClassifyingDataSection) -> tuple[int, ...]:
    """Ids of all labels together."""
    return tuple(sorted({number for ids in structures(data).values() for number in ids}))


def scored_structures(settings: ClassifyingSettings) -> dict[str, tuple[int, ...]]:
    """The labels, and all of them together where they exclude each other."""
    known, name = dict(structures(settings.data)), settings.metrics.organ_name
    if name and name not in known and len(known) > 1 and not has_regions(settings.data):
        known[name] = organ_ids(settings.data)
    return known
