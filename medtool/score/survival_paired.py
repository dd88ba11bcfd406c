"""Two models' risks of the same patients: by how much one orders them better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import numpy as np

from medtool.core.errors import UsageError
from medtool.score.classification import MetricDefaults, MetricSettings
from medtool.score.intervals import bootstrap, two_sided_p
from medtool.score.paired import PairedDifference
from medtool.score.sample import FloatArray
from medtool.score.survival import survival_sample
from medtool.score.survival_ranking import harrell

Row = Mapping[str, Any]
# What is compared, as a structure and its metric.
RISK, HARRELL_C = "risk", "harrell_c"


def compare_risks(
    first: Sequence[Row],
    second: Sequence[Row],
    *,
    metrics: MetricSettings | None = None,
    seed: int = 0,
) -> PairedDifference | None:
    """Harrell's C of both on the patients that both answered; None where there are none.

    Rows have ``patient``, ``risk`` (higher is worse), ``time_days``, ``event``; each patient once.
    The bootstrap draws the same patients for both. Raises UsageError where the models were told
    different outcomes of a patient.
    """
    settings = metrics or MetricDefaults()
    theirs = {str(row["patient"]): row for row in second}
    pairs = [(row, theirs[str(row["patient"])]) for row in first if str(row["patient"]) in theirs]
    if not pairs:
        return None
    odd = [str(one["patient"]) for one, other in pairs if _outcome(one) != _outcome(other)]
    if odd:
        raise UsageError(
            "The two models were scored with different outcomes.",
            met=f"{len(odd)} patients, first {odd[0]}",
            wanted="one table of outcomes for both",
        )
    sample = survival_sample(
        [one["time_days"] for one, _ in pairs],
        [one["event"] for one, _ in pairs],
        [str(one["patient"]) for one, _ in pairs],
    )
    ours, others = (harrell(sample, [pair[which]["risk"] for pair in pairs]) for which in (0, 1))

    def apart(weights: FloatArray) -> dict[str, FloatArray]:
        return {RISK: ours.count(weights).c_index - others.count(weights).c_index}

    resampled = bootstrap(sample, apart, draws=settings.bootstrap_draws, seed=seed, jackknife=False)
    return PairedDifference(
        structure=RISK,
        metric=HARRELL_C,
        first=ours.c_index(),
        second=others.c_index(),
        difference=float(apart(np.ones((1, sample.n)))[RISK][0]),
        interval=resampled.percentile(RISK, settings.confidence),
        n=sample.n,
        patients=sample.n,
        p_bootstrap=two_sided_p(resampled.replicates[RISK]),
        p_wilcoxon=nan,
    )


def _outcome(row: Row) -> tuple[float, bool]:
    return float(row["time_days"]), bool(row["event"])
