"""Plans equal nnU-Net's own (v2.8.1) on data sets whose plans are known, and say why."""

from __future__ import annotations

import json

import pytest

from medtool.core.errors import InputError, UsageError
from medtool.core.plan import ChannelIntensities, plan_from_dict
from medtool.data.fingerprint import Fingerprint
from medtool.data.planning import make_plan, resampled_size, target_spacing
from medtool.data.topology import feature_values

CT = ChannelIntensities(80.0, 82.0, 61.5, -990.0, 1500.0, -96.0, 215.0)


def uniform(cases, size, spacing, *, channels=1, relative_size=1.0) -> Fingerprint:
    return Fingerprint((size,) * cases, (spacing,) * cases, relative_size, (CT,) * channels)


ABDOMEN = uniform(281, (93, 512, 512), (2.5, 0.8, 0.8))
REGION = uniform(252, (64, 117, 181), (2.0, 0.73, 0.73))
SMALL = uniform(260, (36, 50, 35), (1.0, 1.0, 1.0))
BRAIN = uniform(484, (138, 170, 138), (1.0, 1.0, 1.0), channels=4, relative_size=0.55)
HEART = Fingerprint(
    ((9, 237, 208),) * 200,
    ((10.0, 1.5625, 1.5625),) * 150 + ((5.0, 1.5625, 1.5625),) * 50,
    1.0,
    (CT,),
)


def facts(plan, name):
    configuration = plan.configurations.get(name)
    if configuration is None:
        return None
    return configuration.patch_size_vox, configuration.batch_size


# (data, channels, planner): 3d_fullres and 3d_lowres as (patch, batch) or None, 2d likewise.
GOLDENS = [
    (ABDOMEN, ("CT",), "default", ((40, 224, 224), 2), ((64, 192, 192), 2), ((512, 512), 12)),
    (ABDOMEN, ("CT",), "residual-m", ((40, 224, 192), 2), ((64, 192, 192), 2), ((512, 512), 12)),
    (ABDOMEN, ("CT",), "residual-l", ((56, 320, 256), 2), None, ((512, 512), 35)),
    (ABDOMEN, ("CT",), "residual-xl", ((64, 384, 384), 2), None, ((512, 512), 52)),
    (REGION, ("CT",), "default", ((64, 128, 192), 3), None, ((128, 192), 132)),
    (REGION, ("CT",), "residual-m", ((64, 128, 192), 2), None, ((128, 192), 134)),
    (REGION, ("CT",), "residual-l", ((64, 128, 192), 7), None, ((128, 192), 378)),
    (REGION, ("CT",), "residual-xl", ((64, 128, 192), 12), None, ((128, 192), 556)),
    (SMALL, ("MR",), "default", ((40, 56, 40), 9), None, ((56, 40), 366)),
    (SMALL, ("MR",), "residual-m", ((40, 56, 40), 58), None, ((56, 40), 1618)),
    (BRAIN, ("T1", "T1c", "T2", "FLAIR"), "default", ((128,) * 3, 2), None, ((192, 160), 105)),
    (HEART, ("MR",), "default", ((20, 256, 224), 4), None, ((256, 224), 56)),
]


@pytest.mark.parametrize(("data", "channels", "planner", "full", "low", "flat"), GOLDENS)
def test_patch_and_batch_are_those_of_nnunet(data, channels, planner, full, low, flat):
    labels = {BRAIN: 4, HEART: 4}.get(data, 3)
    plan = make_plan(data, channels=channels, label_count=labels, planner=planner)

    assert facts(plan, "3d_fullres") == full
    assert facts(plan, "3d_lowres") == low
    assert facts(plan, "2d") == flat


def test_the_network_of_an_abdomen():
    plan = make_plan(ABDOMEN, channels=("CT",), label_count=3)
    full = plan.configurations["3d_fullres"]

    assert full.network.features == (32, 64, 128, 256, 320, 320)
    assert full.network.encoder_blocks == (2,) * 6
    assert full.network.decoder_convolutions == (2,) * 5
    assert feature_values(full.network, full.patch_size_vox, 3) == 539_611_520
    assert len(plan.configurations["2d"].network.features) == 8
    assert plan.configurations["2d"].network.features[-1] == 512


def test_the_low_resolution_of_an_abdomen_feeds_the_cascade():
    plan = make_plan(ABDOMEN, channels=("CT",), label_count=3)
    low, full = plan.configurations["3d_lowres"], plan.configurations["3d_fullres"]

    assert low.spacing_mm == pytest.approx((2.575, 1.3223, 1.3223), abs=5e-5)
    assert low.median_size_vox == (90, 310, 310)
    assert not low.batch_dice and full.batch_dice
    cascade = plan.configurations["3d_cascade_fullres"]
    assert cascade.previous == "3d_lowres" and cascade.patch_size_vox == full.patch_size_vox


def test_residual_networks_have_more_blocks_below():
    plan = make_plan(ABDOMEN, channels=("CT",), label_count=3, planner="residual-m")
    full = plan.configurations["3d_fullres"]

    assert full.network.encoder_blocks == (1, 3, 4, 6, 6, 6)
    assert full.network.decoder_convolutions == (1,) * 5
    assert feature_values(full.network, full.patch_size_vox, 3) == 634_542_720
    large = make_plan(ABDOMEN, channels=("CT",), label_count=3, planner="residual-l")
    assert len(large.configurations["3d_fullres"].network.features) == 7
    assert not large.configurations["3d_fullres"].batch_dice


def test_coarse_slices_of_some_cases_do_not_set_the_spacing():
    spacing, decision = target_spacing(HEART)

    assert spacing == (5.0, 1.5625, 1.5625)
    assert "10th percentile" in decision.why
    plan = make_plan(HEART, channels=("MR",), label_count=4)
    assert plan.configurations["3d_fullres"].median_size_vox == (18, 237, 208)
    assert plan.original_median_size_vox == (9, 237, 208)


def test_the_coarse_axis_never_becomes_finer_than_the_others():
    sizes = ((9, 237, 208),) * 10
    spacings = ((10.0, 1.5, 1.5),) * 8 + ((1.0, 1.5, 1.5),) * 2
    spacing, _ = target_spacing(Fingerprint(sizes, spacings, 1.0, (CT,)))

    assert spacing == pytest.approx((1.50001, 1.5, 1.5), abs=1e-9)


def test_the_coarsest_axis_comes_first():
    data = uniform(20, (512, 512, 93), (0.8, 0.8, 2.5))
    plan = make_plan(data, channels=("CT",), label_count=3)

    assert plan.axes_forward == (2, 0, 1)
    assert plan.configurations["3d_fullres"].spacing_mm == (2.5, 0.8, 0.8)
    assert plan.original_median_size_vox == (93, 512, 512)


def test_images_of_one_slice_have_no_3d_configuration():
    data = uniform(20, (1, 200, 300), (1.0, 1.4, 1.4))
    plan = make_plan(data, channels=("MR",), label_count=2)

    assert set(plan.configurations) == {"2d"}
    assert plan.axes_forward == (0, 1, 2)
    assert plan.configurations["2d"].spacing_mm == (1.0, 1.4, 1.4)


def test_normalisation_follows_the_channels_name():
    data = uniform(20, (64, 64, 64), (1.0, 1.0, 1.0), channels=5)
    names = ("ct", "CTA", "noNorm", "rescale_to_0_1", "rgb_to_0_1")
    configuration = make_plan(data, channels=names, label_count=2).configurations["3d_fullres"]

    assert configuration.normalisation == ("ct", "z-score", "none", "rescale-0-1", "rgb-0-1")
    assert configuration.mask_for_normalisation == (False,) * 5


def test_only_z_scores_are_taken_inside_the_body():
    data = uniform(20, (64, 64, 64), (1.0, 1.0, 1.0), channels=2, relative_size=0.5)
    configuration = make_plan(data, channels=("CT", "PET"), label_count=2).configurations["2d"]

    assert configuration.mask_for_normalisation == (False, True)


def test_more_memory_gives_larger_patches_and_less_smaller_ones():
    patches = [
        make_plan(ABDOMEN, channels=("CT",), label_count=3, memory_gb=memory)
        .configurations["3d_fullres"]
        .patch_size_vox
        for memory in (4, 8, 16)
    ]
    voxels = [z * y * x for z, y, x in patches]
    assert voxels[0] < voxels[1] < voxels[2]


def test_two_cores_get_a_narrow_network_and_the_whole_of_a_small_image():
    plan = make_plan(SMALL, channels=("MR",), label_count=3, budget="cpu")
    full = plan.configurations["3d_fullres"]

    assert full.network.features[0] == 16
    assert full.patch_size_vox == (40, 56, 40)
    # 560e6 / 32 values are two patches' worth; one of 89,600 voxels has 108.5 values a voxel, so
    # that 3.6 fit, which nnU-Net rounds.
    assert full.batch_size == 4
    assert any("two cores" in decision.why for decision in plan.decisions)


def test_two_cores_get_small_patches_of_a_large_image():
    plan = make_plan(ABDOMEN, channels=("CT",), label_count=3, budget="cpu")
    full = plan.configurations["3d_fullres"]

    assert full.batch_size == 2
    # A 32nd of the feature values of the 8 GB plan.
    assert feature_values(full.network, full.patch_size_vox, 3) <= 560e6 / 32


def test_every_decision_says_why_and_the_plan_goes_through_json():
    plan = make_plan(ABDOMEN, channels=("CT",), label_count=3)
    decisions = [*plan.decisions]
    for configuration in plan.configurations.values():
        decisions += configuration.decisions

    assert all(decision.what and decision.value and decision.why for decision in decisions)
    assert plan_from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_a_misspelt_planner_is_offered_the_nearest():
    with pytest.raises(UsageError) as caught:
        make_plan(SMALL, channels=("MR",), label_count=3, planner="residual_m")
    assert caught.value.nearest == "residual-m"


def test_no_memory_is_refused():
    with pytest.raises(UsageError, match="memory"):
        make_plan(SMALL, channels=("MR",), label_count=3, memory_gb=0)


def test_ct_without_any_foreground_is_refused():
    with pytest.raises(InputError, match="inside the labels"):
        make_plan(uniform(3, (9, 9, 9), (1, 1, 1), channels=0), channels=("CT",), label_count=2)


def test_sizes_after_resampling():
    # Python's rounding, as nnU-Net's: 93 * 2.5 / 2 = 116.25, 512 * .8 / .73 = 561.1; 2.5 to 2.
    assert resampled_size((93, 512, 512), (2.5, 0.8, 0.8), (2, 0.73, 0.73)) == (116, 561, 561)
    assert resampled_size((5, 1, 1), (1, 1, 1), (2, 1, 1)) == (2, 1, 1)
    # From a fault: two slices of 1 mm became none of 5 mm, and the case failed like a bug.
    assert resampled_size((2, 5, 5), (1, 1, 1), (5, 1, 1)) == (1, 5, 5)
