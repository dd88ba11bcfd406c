"""timm, imported in a way that also works where torchvision's compiled part does not load.

torchvision's wheels for Linux are compiled against CUDA's libraries. Beside a CPU build of torch
its extension does not load, and its import then fails with "operator torchvision::nms does not
exist", since it registers functions for operators that nobody has declared. ``timm.layers``
imports torchvision whatever model is asked for, so everything in medtool imports timm from here.

Where that error, and only that, is met, the two operators are declared (their schemas, without an
implementation) and torchvision is imported again. Calling the operators still gives torchvision's
own error; nothing here calls them. Where the first import succeeds nothing is touched.
"""

from __future__ import annotations

import importlib
import sys

import torch

# What torchvision registers functions for while it is imported (its ops/ and
# _meta_registrations); the signatures are those of torchvision's own declarations.
MISSING_OPERATORS = ("nms", "qnms")
OPERATOR_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# A library's declarations live as long as this object does.
_declared: list[torch.library.Library] = []


def import_torchvision() -> bool:
    """Import torchvision; says whether its operators had to be declared for that."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return False
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in MISSING_OPERATORS:
        library.define(operator + OPERATOR_SCHEMA)  # type: ignore[no-untyped-call]
    _declared.append(library)
    importlib.import_module("torchvision")
    return True


import_torchvision()

import timm  # noqa: E402 - only after torchvision could be imported

__all__ = ["import_torchvision", "timm"]
