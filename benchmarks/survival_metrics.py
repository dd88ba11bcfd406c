"""Survival beside lifelines, scikit-survival and torchsurv: the same numbers, and how fast.

    python benchmarks/survival_metrics.py [--peers DIR]

DIR is a virtual environment with the three (benchmarks/requirements-survival.txt;
benchmarks/.venv-survival is taken when it is there); without it ours are timed alone. Compared are
Cox's regression, C-indices, AUC, Brier scores, baseline hazard, Kaplan-Meier and log-rank on the
four tables of patients that the packages bring. Timed are Harrell's and Uno's C of simulated
patients, and a draw of their bootstrap, which for the peers is one more index; and Cox's loss with
its gradient, as a network learns by it. All take turns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peer_process import PeerProcess, peers_at
from results import Row, begin, best_in_turn, work_folder

TABLES = ("rossi", "whas500", "veterans", "gbsg2")
# Largest difference that is none, relative beyond 1.
LARGEST_DIFFERENCE = 1e-6
# torchsurv sums in 32 bits, whatever it is given: good for so many patients.
LARGEST_IN_32_BITS, MOST_IN_32_BITS = 1e-5, 5_000
SIZES, QUICK_SIZES = (500, 5_000, 50_000), (60,)
ROUNDS = 3
DRAWS = 20
# n log n from 5,000 to 50,000 is 12.7; memory that no longer fits into a cache costs the rest.
MOST_GROWTH = 30.0
PEERS = Path(__file__).parent / ".venv-survival"

Sample = dict[str, Any]


def ours(stored: Any, asked: dict[str, Any]) -> dict[str, list[float]]:
    """The numbers of a table that the peers give."""
    from medtool.score.survival import survival_sample
    from medtool.score.survival_curves import censoring_curve, kaplan_meier, log_rank
    from medtool.score.survival_error import brier_terms, brier_weighted, integrated_brier
    from medtool.score.survival_ranking import (
        auc_weighted,
        equal_time_pairs,
        harrell,
        mean_auc_weighted,
        uno,
    )
    from medtool.score.survival_regression import baseline_hazard, fit_cox

    sample = survival_sample(stored["times"], stored["events"])
    rows, names, times = stored["rows"], asked["names"], asked["horizons"]
    fit = fit_cox(sample, rows, names)
    risks = fit.risks(rows)
    censoring, ones = censoring_curve(sample), np.ones((1, sample.n))
    counter = harrell(sample, risks)
    areas = auc_weighted(sample, risks, censoring, times, ones)
    hazard = baseline_hazard(sample, risks)
    terms = brier_terms(sample, hazard.survival(risks, times), censoring, times)
    scores = brier_weighted(terms, ones)
    test = log_rank(sample, [str(value) for value in stored["group"]])
    return {
        "efron": fit.coefficients.tolist(),
        "breslow": fit_cox(sample, rows, names, ties="breslow").coefficients.tolist(),
        "standard_errors": fit.standard_errors.tolist(),
        "log_likelihood": [fit.log_likelihood],
        "likelihood_ratio": [fit.likelihood_ratio],
        "harrell": [counter.c_index()] * 2,
        "pairs": [*(float(part[0]) for part in counter.count()), equal_time_pairs(sample)[0]][:3],
        "uno": [uno(sample, risks, censoring, tau).c_index() for tau in asked["before"]],
        "auc": [*areas[0].tolist(), float(mean_auc_weighted(sample, areas, times, ones)[0])],
        "brier": scores[0].tolist(),
        "integrated_brier": integrated_brier(scores, times).tolist(),
        "baseline": (hazard.cumulative_at(times) * np.exp(-hazard.centre)).tolist(),
        "kaplan_meier": kaplan_meier(sample).at(times).tolist(),
        "log_rank": [test.chi_square, test.p],
    }


def compared(peers: PeerProcess, folder: Path) -> list[Row]:
    """The largest difference of any number, by table."""
    rows = []
    for name in TABLES:
        path = folder / f"{name}.npz"
        asked = peers.ask({"table": name, "path": str(path)})
        with np.load(path) as stored:
            found = ours(stored, asked)
        apart = {
            number: max(
                abs(one - other) / max(1.0, abs(other))
                for one, other in zip(found[number], wanted, strict=True)
            )
            for number, wanted in asked["numbers"].items()
        }
        rows.append(
            Row(
                f"largest difference on the table {name}",
                max(apart.values()),
                unit="",
                most=LARGEST_DIFFERENCE,
                detail=apart,
            )
        )
    return rows


def simulated(patients: int) -> Sample:
    """Risks that act, half of the patients censored, times in whole days."""
    generator = np.random.default_rng(patients)
    risks = generator.normal(size=patients)
    until = generator.exponential(900 / np.exp(risks))
    end = generator.exponential(900, patients)
    times = np.ceil(np.minimum(until, end))
    before = float(np.quantile(times, 0.9))
    return {"times": times, "events": until <= end, "risks": risks, "before": before}


def our_index(what: str, drawn: Sample) -> float:
    """One index, from arrays."""
    return float(_counter(what, drawn).c_index())


def our_draws(what: str, drawn: Sample) -> Any:
    """An index in many draws of the bootstrap."""
    from medtool.score.intervals import bootstrap

    counter = _counter(what, drawn)
    return bootstrap(
        counter.sample,
        lambda weights: {what: counter.count(weights).c_index},
        draws=DRAWS,
        jackknife=False,
    )


def _counter(what: str, drawn: Sample) -> Any:
    from medtool.score.survival import survival_sample
    from medtool.score.survival_curves import censoring_curve
    from medtool.score.survival_ranking import harrell, uno

    sample = survival_sample(drawn["times"], drawn["events"])
    if what == "harrell":
        return harrell(sample, drawn["risks"])
    return uno(sample, drawn["risks"], censoring_curve(sample), drawn["before"])


def timed(peers: PeerProcess | None, folder: Path, *, quick: bool) -> list[Row]:
    """Seconds of each index and size, of a draw, and the ratios."""
    rows, alone = [], {}
    for size in QUICK_SIZES if quick else SIZES:
        drawn = simulated(size)
        if peers is not None:
            path = folder / f"{size}.npz"
            np.savez(path, **drawn)
            peers.ask({"load": str(path)})
        for what, sides in (
            ("harrell", ("lifelines", "scikit-survival")),
            ("uno", ("scikit-survival",)),
        ):
            measured: dict[str, Callable[[], object]] = {
                "medtool": partial(our_index, what, drawn),
                "draws": partial(our_draws, what, drawn),
            }
            if peers is not None:
                for side in sides:
                    question = {"time": side, "what": what}
                    measured[side] = partial(peers.ask, question)
            seconds = best_in_turn(measured, rounds=1 if quick else ROUNDS)
            alone[what, size] = seconds["medtool"]
            each = seconds["draws"] / DRAWS
            rows.append(Row(f"{what}'s C of {size} patients", seconds["medtool"], unit="s"))
            for side in sides if peers is not None else ():
                detail = {"seconds": seconds}
                of_index = seconds[side] / seconds["medtool"]
                rows.append(Row(f"{side} over medtool, {what}, {size}", of_index, detail=detail))
                what_of = f"{side} over a draw of ours, {what}, {size}"
                rows.append(Row(what_of, seconds[side] / each, detail=detail))
    if not quick:
        rows += [
            Row(
                f"{what}'s C of 50,000 patients over 5,000",
                alone[what, 50_000] / alone[what, 5_000],
                most=MOST_GROWTH,
            )
            for what in ("harrell", "uno")
        ]
    return rows


def our_cox(drawn: Sample) -> tuple[float, list[float]]:
    """Cox's loss and its gradient, of which torchsurv gives the same."""
    import torch

    from medtool.nets.survival_losses import Outcomes, cox_loss

    risks = torch.from_numpy(drawn["risks"]).requires_grad_()
    outcomes = Outcomes(torch.from_numpy(drawn["times"]), torch.from_numpy(drawn["events"]))
    loss = cox_loss(risks, outcomes, ties="efron")
    (gradient,) = torch.autograd.grad(loss, risks)
    return float(loss.detach()), gradient.tolist()


def cox_rows(peers: PeerProcess | None, folder: Path, *, quick: bool) -> list[Row]:
    """Seconds of the loss with its gradient; torchsurv's ratio, and how far both are apart.

    No two times are alike: where events share one, torchsurv divides by the number of times.
    """
    rows = []
    for size in QUICK_SIZES if quick else SIZES:
        drawn = simulated(size)
        drawn["times"] = drawn["times"] + np.linspace(0.0, 0.5, size)
        measured: dict[str, Callable[[], object]] = {"medtool": partial(our_cox, drawn)}
        if peers is not None:
            path = folder / f"cox-{size}.npz"
            np.savez(path, **drawn)
            peers.ask({"load": str(path)})
            measured["torchsurv"] = partial(peers.ask, {"time": "torchsurv", "what": "cox"})
        seconds = best_in_turn(measured, rounds=1 if quick else ROUNDS)
        rows.append(Row(f"Cox's loss of {size} patients", seconds["medtool"], unit="s"))
        if peers is None:
            continue
        ratio = seconds["torchsurv"] / seconds["medtool"]
        rows.append(Row(f"torchsurv over medtool, Cox's loss, {size}", ratio, detail=seconds))
        (loss, gradient), (theirs, slope) = our_cox(drawn), peers.ask({"cox": True})
        apart = max(abs(loss - theirs), float(np.abs(np.subtract(gradient, slope)).max()))
        what = f"Cox's loss and gradient of {size}: largest difference"
        exact = size <= MOST_IN_32_BITS
        rows.append(Row(what, apart, "", most=LARGEST_IN_32_BITS if exact else None))
    return rows


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", type=Path, default=PEERS)


def main() -> int:
    """Compare, measure, print, keep."""
    run = begin("survival_metrics", __doc__, ("numpy", "scipy"), add_options)
    options = run.options
    with work_folder() as work:
        if not (options.peers / "bin" / "python").exists():
            rows = timed(None, work, quick=options.quick)
            rows += cox_rows(None, work, quick=options.quick)
            return run.finish(rows, notes=["The peers are not installed: nothing was compared."])
        with peers_at(options.peers, "survival_peers.py") as peers:
            rows = compared(peers, work) + timed(peers, work, quick=options.quick)
            rows += cox_rows(peers, work, quick=options.quick)
            return run.finish(rows, notes=[peers.said()])


if __name__ == "__main__":
    sys.exit(main())
