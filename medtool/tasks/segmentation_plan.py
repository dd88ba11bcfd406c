"""The plan that stands in a preset, as preparation and networks take it."""

from __future__ import annotations

from medtool.core.errors import UsageError
from medtool.core.plan import ChannelIntensities, Configuration, NetworkPlan, Plan
from medtool.tasks.segmentation_settings import SegmentationModelSection, SegmentationSettings


def network_plan(model: SegmentationModelSection) -> NetworkPlan:
    """The planned shape of the network. Raises UsageError where nothing was planned."""
    if model.kind == "planned" or not model.patch_size_vox:
        raise UsageError(
            "The network is not planned yet.",
            met="no features, strides and patch in [model]",
            how="let 'medtool train' plan it from the data, or give them in the preset.",
        )
    return NetworkPlan(
        kind=model.kind,
        features=tuple(model.features),
        kernel_sizes=tuple(map(tuple, model.kernel_sizes)),
        strides=tuple(map(tuple, model.strides)),
        encoder_blocks=tuple(model.encoder_blocks),
        decoder_convolutions=tuple(model.decoder_convolutions),
    )


def plan_of(settings: SegmentationSettings) -> tuple[Plan, Configuration]:
    """Plan and configuration as far as the preset keeps them. Raises UsageError as above."""
    model, preparation = settings.model, settings.data.preparation
    configuration = Configuration(
        name=preparation.configuration,
        spacing_mm=tuple(preparation.spacing_mm),
        median_size_vox=(),
        patch_size_vox=tuple(model.patch_size_vox),
        batch_size=settings.train.batch_cases,
        normalisation=tuple(preparation.normalisation),
        mask_for_normalisation=tuple(preparation.mask_for_normalisation),
        batch_dice=bool(settings.train.batch_dice),
        network=network_plan(model),
    )
    first, second, third = preparation.axes_forward
    plan = Plan(
        planner=model.planner,
        axes_forward=(first, second, third),
        original_median_spacing_mm=(),
        original_median_size_vox=(),
        intensities=tuple(ChannelIntensities(**dict(one)) for one in preparation.intensities),
        configurations={configuration.name: configuration},
        orientation=preparation.orientation,
    )
    return plan, configuration
