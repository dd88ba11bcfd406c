"""The labels of a segmentation as networks, masks and tables need them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from medtool.core.errors import UsageError
from medtool.core.names import nearest_name, safe_file_stem
from medtool.data.dataset_record import BACKGROUND, LabelScheme
from medtool.tasks.segmentation_settings import SegmentationDataSection, SegmentationSettings

BACKGROUND_ID = 0
# Under this name masks stand in references, truths and predictions.
MASK = "mask"


def structures(data: SegmentationDataSection) -> Mapping[str, tuple[int, ...]]:
    """Ids of each label or region but the background, in the order of the network's outputs."""
    return {name: tuple(ids) for name, ids in data.label_ids.items() if ids != [BACKGROUND_ID]}


def has_regions(data: SegmentationDataSection) -> bool:
    """Whether labels overlap, so that each has an output of its own."""
    return bool(data.regions_order)


def output_count(data: SegmentationDataSection) -> int:
    """Outputs of the network: the background and each label, or one a region."""
    return len(structures(data)) + (0 if has_regions(data) else 1)


def output_ids(data: SegmentationDataSection) -> tuple[int, ...]:
    """The id that each output writes: of the background first, or of each region."""
    if has_regions(data):
        return tuple(data.regions_order)
    return (BACKGROUND_ID, *(ids[0] for ids in structures(data).values()))


def require_known_labels(settings: SegmentationSettings, known: Collection[str]) -> None:
    """Raises UsageError where a key names a structure that there is not, which would do nothing."""
    metrics, infer = settings.metrics, settings.infer
    # Of slices there are least volumes as well; a prognosis has none.
    least = getattr(infer, "least_volumes_ml", {})
    labels = structures(settings.data)
    named: list[tuple[str, Iterable[str], Collection[str]]] = [
        ("metrics.nsd_tolerances_mm", metrics.nsd_tolerances_mm, known),
        ("metrics.lesions", metrics.lesions, known),
        ("infer.least_volumes_ml", least, labels),
        ("infer.removed_becomes", infer.removed_becomes, labels),
        ("infer.removed_becomes", infer.removed_becomes.values(), [BACKGROUND, *labels]),
    ]
    for where, names, wanted in named:
        for name in names:
            if name not in wanted:
                raise UsageError(
                    "A label is named that there is not.",
                    where=where,
                    met=name,
                    wanted="one of: " + ", ".join(wanted),
                    nearest=nearest_name(name, wanted),
                )


def volume_column(name: str) -> str:
    """The column of a label's volume in predictions.csv."""
    return f"volume_{safe_file_stem(name).lower()}_ml"


def scheme_of(data: SegmentationDataSection) -> LabelScheme:
    """The labels as data sets have them."""
    ids = {name: tuple(numbers) for name, numbers in data.label_ids.items()}
    return LabelScheme(
        {BACKGROUND: (BACKGROUND_ID,), **ids}, tuple(data.regions_order), data.ignore_id
    )
