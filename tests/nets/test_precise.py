"""Functions in the form that graphs for other engines have, against torch in double precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medtool.nets import precise
from medtool.nets.exporting import exporting

SIZES = torch.logspace(-12, 1.5, 200, dtype=torch.float64)
BOTH_SIGNS = torch.cat((-SIZES, SIZES))
WANTED: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "expm1": (torch.expm1, BOTH_SIGNS),
    "log1p": (torch.log1p, torch.cat((-SIZES[SIZES < 0.9], SIZES))),
    "sigmoid": (torch.sigmoid, BOTH_SIGNS),
    "log_sigmoid": (F.logsigmoid, BOTH_SIGNS),
    # torch's own ends its curve at 20.
    "softplus": (lambda values: -F.logsigmoid(-values), BOTH_SIGNS),
}


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("exported", [True, False])
def test_small_values_keep_their_digits(name: str, exported: bool) -> None:
    function, values = WANTED[name]
    wanted = function(values.float().double())
    if exported:
        with exporting():
            found = getattr(precise, name)(values.float())
    else:
        found = getattr(precise, name)(values.float())
    torch.testing.assert_close(found.double(), wanted, rtol=3e-6, atol=0)
