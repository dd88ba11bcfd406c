"""What train says of stages and epochs: short enough for a terminal."""

from __future__ import annotations

from medtool.train.loop import EpochDone
from medtool.verbs.stage_text import rates_text
from medtool.verbs.train_run import epoch_text

METRICS = {"loss": 0.696, "auroc": 0.9512, "f1": 0.9, "sensitivity": 1.0, "threshold": 0.54}


def epoch(**changes: object) -> EpochDone:
    given = {
        "epoch": 4,
        "stage": 0,
        "losses": {"loss": 0.69026},
        "metrics": METRICS,
        "rates": {},
        "seconds": 53.61,
        "data_wait_share": 0.02,
        "is_best": False,
        "ends_stage": False,
    }
    return EpochDone(**(given | changes))  # type: ignore[arg-type]


def test_an_epoch_is_one_line_of_a_terminal() -> None:
    text = epoch_text(epoch(is_best=True), 100, "auroc")
    assert text == (
        "Epoch 5 of 100: loss 0.690; selection set, optimistic: loss 0.696, auroc 0.951 (best);"
        " 53.6 s"
    )


def test_waiting_for_data_is_said_when_it_costs_something() -> None:
    text = epoch_text(epoch(data_wait_share=0.31), 100, "f1")
    assert text.endswith(
        "selection set, optimistic: loss 0.696, f1 0.900; 53.6 s, 31% waiting for data"
    )


def test_groups_at_one_rate_are_said_together() -> None:
    rates = {"stem": 2e-3, "layer1": 2e-3, "head": 5e-5}
    assert rates_text(rates) == "stem, layer1 at 0.002; head at 5e-05"
