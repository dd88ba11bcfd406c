"""Cox's partial likelihood as a loss: risks (n) of patients beside their times and events.

A risk set is everybody whose time is not before the event's: who is censored at that time is still
in it. Sums of exponentials are kept as logarithms throughout, so that no risk overflows, and all is
computed in float32 at least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medtool.core.errors import UnknownNameError
from medtool.core.names import nearest_name

Ties = Literal["efron", "breslow"]
TIES: tuple[Ties, ...] = ("efron", "breslow")


@dataclass(frozen=True)
class Outcomes:
    """What is known of n patients, each tensor (n).

    ``events`` are 1 where the event was seen, 0 where follow-up ended before it. ``strata``,
    integers, keep risk sets apart (one centre is not compared with another). Where ``known`` is
    false a patient has no outcome: times and events there may be anything, and the patient counts
    nowhere.
    """

    times: Tensor
    events: Tensor
    strata: Tensor | None = None
    known: Tensor | None = None

    def take(self, rows: Tensor) -> Outcomes:
        """The patients of ``rows`` (m), indices or a mask; the strata and masks with them."""
        strata = None if self.strata is None else self.strata[rows]
        known = None if self.known is None else self.known[rows]
        return Outcomes(self.times[rows], self.events[rows], strata, known)


def cox_loss(risks: Tensor, outcomes: Outcomes, *, ties: Ties = "efron") -> Tensor:
    """Minus the logarithm of the partial likelihood of ``risks`` (n), per event; a scalar.

    Events at one time by Efron (1977) or Breslow (1974). Without any event the loss is 0 and its
    gradient 0, so that a step can be made. Raises UnknownNameError for other ``ties``.
    """
    if ties not in TIES:
        raise UnknownNameError(
            f"There is no way of handling ties named '{ties}'.",
            met=ties,
            wanted="one of: " + ", ".join(TIES),
            nearest=nearest_name(ties, TIES),
        )
    values = risks if risks.dtype == torch.float64 else risks.float()
    if outcomes.known is not None:
        values, outcomes = values[outcomes.known], outcomes.take(outcomes.known)
    events = int((outcomes.events > 0).sum())
    if events == 0:
        return (risks * 0).sum()
    if outcomes.strata is None:
        return -_log_likelihood(values, outcomes, ties) / events
    parts = [outcomes.strata == stratum for stratum in set(outcomes.strata.tolist())]
    sums = [_log_likelihood(values[part], outcomes.take(part), ties) for part in parts]
    return -torch.stack(sums).sum() / events


def _log_likelihood(risks: Tensor, outcomes: Outcomes, ties: Ties) -> Tensor:
    """The logarithm of the partial likelihood of one stratum, summed over its events."""
    order = torch.argsort(outcomes.times, descending=True, stable=True)
    risks, times, died = risks[order], outcomes.times[order], outcomes.events[order] > 0
    # Of patients with one time, in this order, all are in the risk set: it ends with the last.
    _, group, sizes = torch.unique_consecutive(times, return_inverse=True, return_counts=True)
    last = sizes.cumsum(0) - 1
    at_risk = torch.logcumsumexp(risks, 0)[last][group][died]
    own = group[died]
    if ties == "efron":
        at_risk = at_risk + _less_of_the_tied(risks[died], own, at_risk)
    return (risks[died] - at_risk).sum()


def _less_of_the_tied(risks: Tensor, group: Tensor, at_risk: Tensor) -> Tensor:
    """(d) what Efron's risk sets lack, as a logarithm to be added.

    The q-th of d events at one time (from 0) has a risk set with q/d of their own sum left out.
    ``risks``, ``group`` and ``at_risk`` (d) are of events in falling order of time.
    """
    _, own, sizes = torch.unique_consecutive(group, return_inverse=True, return_counts=True)
    first = sizes.cumsum(0) - sizes
    number = torch.arange(risks.numel(), device=risks.device) - first[own]
    share = number / sizes[own]
    top = risks.new_full((sizes.numel(),), -torch.inf)
    top = top.scatter_reduce(0, own, risks.detach(), "amax")
    sums = risks.new_zeros(sizes.numel()).index_add(0, own, (risks - top[own]).exp())
    tied = (top + sums.log())[own]
    # Rounding may lift a part above the whole.
    return torch.log1p(-share.to(risks.dtype) * (tied - at_risk).clamp(max=0).exp())
