"""The plan of the classic U-Net for flat images (Ronneberger 2015), padded and with batch norm.

``build_unet(classic_plan(), 3, 1, style=CLASSIC_STYLE)`` is the network with 64, 128, 256 and 512
features, 1024 at the bottleneck and two 3 x 3 convolutions a level: 31,043,521 parameters.
"""

from __future__ import annotations

from medtool.core.plan import NetworkPlan

FIRST_FEATURES = 64
# Levels of resolution, the bottleneck among them.
LEVELS = 5
CONVOLUTIONS_PER_LEVEL = 2


def classic_plan(first_features: int = FIRST_FEATURES, levels: int = LEVELS) -> NetworkPlan:
    """Features double and resolution halves from level to level."""
    return NetworkPlan(
        kind="plain",
        features=tuple(first_features * 2**level for level in range(levels)),
        kernel_sizes=((3, 3),) * levels,
        strides=((1, 1), *((2, 2),) * (levels - 1)),
        encoder_blocks=(CONVOLUTIONS_PER_LEVEL,) * levels,
        decoder_convolutions=(CONVOLUTIONS_PER_LEVEL,) * (levels - 1),
    )
