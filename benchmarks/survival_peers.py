"""lifelines, scikit-survival and torchsurv, asked by survival_metrics.py line by line.

Runs in an environment of its own (requirements-survival.txt) and imports nothing of medtool. Each
line of its input is a JSON object: ``{"table": NAME, "path": PATH}`` writes a table of patients and
gives every number of it, ``{"load": PATH}`` reads a sample, ``{"time": SIDE, "what": METRIC}``
computes what SIDE is timed for and gives it, ``{"cox": true}`` gives Cox's loss and its gradient.
Each answer is a line.
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import torch
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.datasets import load_rossi
from lifelines.statistics import logrank_test
from lifelines.utils import concordance_index
from sksurv import datasets
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.metrics import (
    brier_score,
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.util import Surv
from torchsurv.loss.cox import neg_partial_log_likelihood

# What the two warn of is theirs to mend.
warnings.simplefilter("ignore")
# Times before which pairs count for Uno's C, and the column of the log-rank test.
CHOSEN = {
    "rossi": ((50, 40), "fin"),
    "whas500": ((2000, 1000), "gender_1"),
    "veterans": ((500, 200), "Treatment_test"),
    "gbsg2": ((2000, 1500), "horTh_yes"),
}
LOADERS = {
    "whas500": datasets.load_whas500,
    "veterans": datasets.load_veterans_lung_cancer,
    "gbsg2": datasets.load_gbsg2,
}


def table(name: str) -> tuple[Any, Any, Any]:
    """Times, events and covariates: categories as columns of 0 and 1, the first left out."""
    if name == "rossi":
        found = load_rossi()
        rows = found.drop(columns=["week", "arrest"])
        return found.week.to_numpy(float), found.arrest.to_numpy(bool), rows.astype(float)
    rows, outcome = LOADERS[name]()
    event, time = outcome.dtype.names
    rows = pd.get_dummies(rows, drop_first=True).astype(float)
    return outcome[time].astype(float), outcome[event], rows


def numbers(name: str, path: str) -> dict[str, Any]:
    """Every number of a table, by the packages; risks are those of Cox's regression by Efron."""
    times, events, rows = table(name)
    horizons = np.percentile(times[events], [25, 50, 75])
    before, column = CHOSEN[name]
    np.savez(path, times=times, events=events, rows=rows.to_numpy(), group=rows[column].to_numpy())
    outcome = Surv.from_arrays(events, times)
    fits = {
        ties: CoxPHSurvivalAnalysis(ties=ties, tol=1e-12).fit(rows, outcome)
        for ties in ("efron", "breslow")
    }
    whole = rows.assign(time_of_it=times, event_of_it=events)
    # As far as it goes: its own default leaves errors in the sixth digit of whas500.
    exact = {"precision": 1e-12, "r_precision": 1e-14}
    lifelines = CoxPHFitter().fit(whole, "time_of_it", "event_of_it", fit_options=exact)
    risks = fits["efron"].predict(rows)
    c_index, *pairs, _ = concordance_index_censored(events, times, risks)
    survival = np.stack(
        [function(horizons) for function in fits["efron"].predict_survival_function(rows)]
    )
    curve = KaplanMeierFitter().fit(times, events)
    group = rows[column].to_numpy() > 0
    test = logrank_test(times[group], times[~group], events[group], events[~group])
    hazard = fits["efron"].cum_baseline_hazard_
    found = {
        "efron": fits["efron"].coef_.tolist(),
        "breslow": fits["breslow"].coef_.tolist(),
        "standard_errors": lifelines.standard_errors_.tolist(),
        "log_likelihood": [lifelines.log_likelihood_],
        "likelihood_ratio": [lifelines.log_likelihood_ratio_test().test_statistic],
        "harrell": [c_index, concordance_index(times, -risks, events)],
        "pairs": [int(count) for count in pairs],
        "uno": [concordance_index_ipcw(outcome, outcome, risks, tau=tau)[0] for tau in before],
        "brier": brier_score(outcome, outcome, survival, horizons)[1].tolist(),
        "integrated_brier": [integrated_brier_score(outcome, outcome, survival, horizons)],
        "baseline": hazard(horizons).tolist(),
        "kaplan_meier": [float(curve.predict(time)) for time in horizons],
        "log_rank": [test.test_statistic, test.p_value],
    }
    try:
        areas, mean = cumulative_dynamic_auc(outcome, outcome, risks, horizons)
        found["auc"] = [*areas.tolist(), float(mean)]
    except ValueError:
        # It asks for weights of events after the last horizon, too: rossi has none there.
        pass
    names = rows.columns.tolist()
    return {"names": names, "horizons": horizons.tolist(), "before": before, "numbers": found}


def timed(side: str, what: str, sample: Any) -> float:
    """One index of a sample by one package."""
    times, events, risks = sample["times"], sample["events"] > 0, sample["risks"]
    if side == "torchsurv":
        return float(cox(sample)[0])
    if side == "lifelines":
        return float(concordance_index(times, -risks, events))
    if what == "harrell":
        return float(concordance_index_censored(events, times, risks)[0])
    outcome = Surv.from_arrays(events, times)
    return float(concordance_index_ipcw(outcome, outcome, risks, tau=float(sample["before"]))[0])


def cox(sample: Any) -> tuple[float, list[float]]:
    """Cox's loss per event, ties by Efron, and its gradient."""
    risks = torch.from_numpy(sample["risks"]).requires_grad_()
    events, times = torch.from_numpy(sample["events"] > 0), torch.from_numpy(sample["times"])
    loss = neg_partial_log_likelihood(risks, events, times, ties_method="efron")
    loss.backward()
    return float(loss.detach()), risks.grad.tolist()


def main() -> None:
    """Answer until the input ends."""
    packages = ("lifelines", "scikit-survival", "torchsurv", "numpy", "scipy", "pandas", "torch")
    print(json.dumps({name: version(name) for name in packages}), flush=True)
    sample: Any = None
    for line in sys.stdin:
        question = json.loads(line)
        answer: Any = None
        if "table" in question:
            answer = numbers(question["table"], question["path"])
        elif "load" in question:
            with np.load(question["load"]) as stored:
                sample = dict(stored)
        elif "cox" in question:
            answer = cox(sample)
        else:
            answer = timed(question["time"], question["what"], sample)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
