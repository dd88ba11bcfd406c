"""A plan goes through JSON, into cache and checkpoint, and comes back the same."""

import json

from medtool.core.plan import (
    ChannelIntensities,
    Configuration,
    Decision,
    NetworkPlan,
    Plan,
    plan_from_dict,
)

NETWORK = NetworkPlan(
    kind="plain",
    features=(32, 64),
    kernel_sizes=((1, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2)),
    encoder_blocks=(2, 2),
    decoder_convolutions=(2,),
)


def test_through_json_and_back():
    configuration = Configuration(
        name="3d_fullres",
        spacing_mm=(2.5, 0.8, 0.8),
        median_size_vox=(93, 512, 512),
        patch_size_vox=(40, 224, 224),
        batch_size=2,
        normalisation=("ct",),
        mask_for_normalisation=(False,),
        batch_dice=True,
        network=NETWORK,
        decisions=(Decision("batch", "2", "memory"),),
    )
    plan = Plan(
        planner="default",
        axes_forward=(2, 0, 1),
        original_median_spacing_mm=(2.5, 0.8, 0.8),
        original_median_size_vox=(93, 512, 512),
        intensities=(ChannelIntensities(80.0, 82.0, 61.5, -990.0, 1500.0, -96.0, 215.0),),
        configurations={"3d_fullres": configuration},
        decisions=(Decision("axes", "z first", "largest spacing"),),
    )

    back = plan_from_dict(json.loads(json.dumps(plan.as_dict())))

    assert back == plan
    assert back.configurations["3d_fullres"].network.dimensions == 3
