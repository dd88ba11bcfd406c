"""A fault of a preset: where it stands, what stands there, what is allowed, what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from medtool.core.errors import PresetError
from medtool.core.names import nearest_name

# What people call a key who come from other tools -> what it may be called here; the first that
# the section has is offered.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "amp": ("precision",),
    "arch": ("backbone",),
    "architecture": ("backbone",),
    "batch": ("batch_cases",),
    "batch_size": ("batch_cases", "batch_slices", "chunk_slices"),
    "bs": ("batch_cases",),
    "clip": ("gradient_clip",),
    "clip_grad": ("gradient_clip",),
    "cv": ("folds",),
    "data_dir": ("folder",),
    "data_path": ("folder",),
    "data_root": ("folder",),
    "dir": ("folder",),
    "drop_rate": ("dropout",),
    "early_stopping": ("early_stopping_epochs",),
    "ema": ("average_decay",),
    "ema_decay": ("average_decay",),
    "encoder": ("backbone",),
    "epoch": ("epochs",),
    "grad_accum": ("accumulate",),
    "grad_clip": ("gradient_clip",),
    "gradient_accumulation": ("accumulate",),
    "labels_csv": ("labels",),
    "lr": ("learning_rate", "rates"),
    "lr_scheduler": ("schedule",),
    "lrs": ("rates",),
    "max_epochs": ("epochs",),
    "metric": ("primary",),
    "model_name": ("backbone",),
    "monitor": ("primary",),
    "n_epochs": ("epochs",),
    "n_splits": ("folds",),
    "network": ("backbone",),
    "num_epochs": ("epochs",),
    "num_folds": ("folds",),
    "optim": ("optimiser",),
    "optimizer": ("optimiser",),
    "patience": ("early_stopping_epochs",),
    "random_seed": ("seed",),
    "random_state": ("seed",),
    "root": ("folder",),
    "sampler": ("sampling",),
    "scheduler": ("schedule",),
    "target": ("label_column",),
    "threshold": ("threshold_rule",),
    "val_share": ("selection_share",),
    "val_size": ("selection_share",),
    "warmup": ("warmup_epochs",),
    "wd": ("weight_decay",),
}

# Longer values are cut where they are quoted.
LONGEST_QUOTE = 60


@dataclass(frozen=True)
class Fault:
    """One fault; ``place`` is ``file:line``, or ``--set``, or the name of a document."""

    place: str
    key: str
    met: str
    wanted: str
    nearest: str = ""

    def text(self) -> str:
        """Two lines or three, indented below the first."""
        lines = [f"{self.place}: {self.key}", f"    wanted: {self.wanted}"]
        if self.met:
            # A key has a value; "the file" and the like are something.
            lines[0] += f": {self.met}" if " " in self.key else f" = {self.met}"
        if self.nearest:
            lines.append(f"    nearest: {self.nearest}")
        return "\n".join(lines)


def nearest_key(name: str, known: Iterable[str]) -> str:
    """The key of a section that was most likely meant, or ""."""
    keys = set(known)
    wanted = name.strip().lower().replace("-", "_")
    meant = next((key for key in SYNONYMS.get(wanted, ()) if key in keys), "")
    return nearest_name(name, keys, {wanted: meant})


def quoted(value: Any) -> str:
    """A value as TOML writes it, cut to a line."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    elif isinstance(value, Mapping):
        text = "a table"
    elif isinstance(value, list):
        text = "[" + ", ".join(quoted(item) for item in value) + "]"
    else:
        text = str(value)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 3] + "..."


def refuse(faults: Iterable[Fault], *, how: str) -> PresetError:
    """The one error that names all the faults, those of a file in the order of its lines."""
    found = list(dict.fromkeys(faults))
    count = "One fault" if len(found) == 1 else f"{len(found)} faults"
    return PresetError(
        f"{count} in the settings.", faults=tuple(fault.text() for fault in found), how=how
    )
