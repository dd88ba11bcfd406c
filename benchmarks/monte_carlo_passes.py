"""Thirty Monte Carlo passes that share what they can, beside thirty whole passes.

    python benchmarks/monte_carlo_passes.py

A U-Net of the classic plan (31 million parameters) on one flat image of two channels, with dropout
after the second or the third of its four decoder levels; random weights, which cost what trained
ones do. Told are the share of the time, the share of the arithmetic as torch counts it, and the
largest difference of a logit, beside the largest logit. Both sides take turns.
"""

from __future__ import annotations

import sys
from typing import Any

from results import Row, begin, best_in_turn

PASSES = 30
SIDE, QUICK_SIDE = 256, 32
QUICK_FEATURES = 4
SHARE = 0.3
ROUNDS = 2
# Level after which the dropout stands, from 0, and the most that thirty passes may cost in
# arithmetic; in time there is one limit.
LEVELS = {1: 0.35, 2: 0.19}
MOST_TIME = 0.4
LARGEST_DIFFERENCE = 1e-5


def network_and_image(level: int, *, quick: bool) -> tuple[Any, Any]:
    """A network in evaluation with dropout after one decoder level, and an image."""
    import torch

    from medtool.nets.classic_unet import classic_plan
    from medtool.nets.convolutions import CLASSIC_STYLE
    from medtool.nets.unet import build_unet

    torch.manual_seed(0)
    plan = classic_plan(QUICK_FEATURES) if quick else classic_plan()
    shares = [SHARE if number == level else 0.0 for number in range(len(plan.features) - 1)]
    network = build_unet(plan, 2, 1, style=CLASSIC_STYLE, decoder_dropout=shares).eval()
    side = QUICK_SIDE if quick else SIDE
    return network, torch.randn(1, 2, side, side)


def measured(level: int, *, quick: bool) -> list[Row]:
    """Time, arithmetic and difference for one place of the dropout."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from medtool.nets.monte_carlo import SharedPass, dropout_at_work, pass_keys

    network, image = network_and_image(level, quick=quick)
    keys = [pass_keys(0, "case", [0], number) for number in range(PASSES)]

    def whole() -> list[Any]:
        with torch.no_grad(), dropout_at_work(network):
            return [network(image, of_pass) for of_pass in keys]

    def shared() -> list[Any]:
        with torch.no_grad(), dropout_at_work(network):
            passes = SharedPass(network, image)
            return [passes.logits(of_pass) for of_pass in keys]

    counted = []
    for side in (shared, whole):
        with FlopCounterMode(display=False) as counter:
            found = side()
        counted.append((counter.get_total_flops(), torch.stack(found)))
    (our_flops, ours), (all_flops, wanted) = counted
    seconds = best_in_turn({"shared": shared, "whole": whole}, rounds=1 if quick else ROUNDS)
    place = f"dropout after {level + 1} of {len(network.decoder.stages)} levels"
    return [
        Row(
            f"time of {PASSES} passes, {place}",
            seconds["shared"] / seconds["whole"],
            most=None if quick else MOST_TIME,
            detail={"seconds": seconds},
        ),
        Row(f"arithmetic of {PASSES} passes, {place}", our_flops / all_flops, most=LEVELS[level]),
        Row(
            f"largest difference of a logit, {place}",
            float((ours - wanted).abs().max() / wanted.abs().max()),
            unit="",
            most=LARGEST_DIFFERENCE,
        ),
    ]


def main() -> int:
    """Measure, print, keep."""
    run = begin("monte_carlo_passes", __doc__, ("torch",))
    return run.finish([row for level in LEVELS for row in measured(level, quick=run.options.quick)])


if __name__ == "__main__":
    sys.exit(main())
