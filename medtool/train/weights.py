"""Weights that others trained: from a file into a backbone, counted; never a part, never silently.

Known layouts of names: torchvision's (``conv1``, ``layer1``, ...: those of timm too) and that of a
``Sequential`` of a ResNet's or DenseNet's children (``backbone.0`` ... ``backbone.7``: the authors
of RadImageNet), each also behind ``module.`` or ``model.``. This is the one place that reads
pickled files, and only as tensors (torch's weights-only loading).
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medtool.config.sections import StageSection
from medtool.config.weights import PretrainedModelSection, WeightsSection
from medtool.core.errors import CheckpointError, UsageError
from medtool.core.names import nearest_name
from medtool.core.progress import Reporter, Silent
from medtool.nets.backbones import backbone_parts, summed_stem
from medtool.train.weights_store import WeightsRecord, fetched_weights

SAFETENSORS = ".safetensors"
TENSORS_WANTED = "a table of tensors: .safetensors, or .pt without code (a state_dict)"
# What programs wrap a table of tensors in, and what they put before its names.
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.")
SEQUENTIAL = "backbone."
# Children of a torchvision ResNet by number; 2, 3 and 8 (ReLU, pooling) have no tensors.
RESNET_CHILDREN = {
    "0": "conv1",
    "1": "bn1",
    "4": "layer1",
    "5": "layer2",
    "6": "layer3",
    "7": "layer4",
}
DENSENET_CHILDREN = {"0": "features"}
# Counts batches for cumulative averages, which no network here uses.
OPTIONAL_SUFFIX = "num_batches_tracked"
# The classifier of torchvision's networks, whatever timm calls it.
CLASSIFIERS = ("fc", "classifier")
RGB = 3


@dataclass(frozen=True)
class WeightReport:
    """What a backbone was started from; goes into ``run.json`` and into checkpoints.

    ``loaded`` and ``total`` count the backbone's tensors; ``ignored`` those of the file's
    classifier.
    """

    file: str
    layout: str
    loaded: int
    total: int
    ignored: int
    tensors_sha256: str
    repository: str = ""
    revision: str = ""
    licence: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def text(self) -> str:
        """One line for a person."""
        # A file of this machine that was taken in place of the hub's has no known revision.
        at = f" at {self.revision[:12]}" if self.revision else ""
        source = f"{self.repository}{at}" if self.repository else self.file
        return (
            f"Backbone: {self.loaded} of {self.total} tensors from {source} "
            f"({self.layout} names, sha256 {self.tensors_sha256[:12]}); "
            f"licence: {self.licence or 'not stated'}."
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a file of ``torch.save``, names as they stand.

    Raises CheckpointError where the file holds anything but tensors.
    """
    if path.suffix.lower() == SAFETENSORS:
        return _read_safetensors(path)
    found = load_without_code(path, wanted=TENSORS_WANTED)
    while isinstance(found, Mapping) and not any(isinstance(v, Tensor) for v in found.values()):
        inner = next((found[name] for name in WRAPPERS if name in found), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping):
        raise _unreadable(path, f"a {type(found).__name__}")
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        raise _unreadable(path, "no tensors")
    return tensors


def load_without_code(path: Path, *, wanted: str, allowed: Sequence[Any] = ()) -> Any:
    """What ``torch.save`` wrote to ``path``, on the CPU; nothing in it is run.

    Only tensors, plain values and the types ``allowed`` are made. Raises CheckpointError that names
    whatever else the file wants to make.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        met = f"code ({foreign[1]}), of which nothing was run" if foreign else "a damaged pickle"
        raise _unreadable(path, met, wanted) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        met = (str(error) or type(error).__name__).splitlines()[0]
        raise _unreadable(path, met, wanted) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, str(error).splitlines()[0]) from error


def _unreadable(path: Path, met: str, wanted: str = TENSORS_WANTED) -> CheckpointError:
    return CheckpointError(
        "This file cannot be read as weights.",
        where=str(path),
        met=met,
        wanted=wanted,
        how="save the network's state_dict(), not the network, and give that file.",
    )


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and values, whatever file format they came in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def known_names(tensors: Mapping[str, Tensor], layout: str) -> tuple[dict[str, Tensor], str]:
    """Tensors by torchvision's names, and the layout that was met.

    ``layout`` is auto, torchvision or sequential. Raises CheckpointError where it is another.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stripped = name
        while stripped.startswith(PREFIXES):
            stripped = stripped.split(".", 1)[1]
        plain[stripped] = tensor
    behind = {name.removeprefix(SEQUENTIAL): t for name, t in plain.items()}
    numbered = all(name.split(".")[0].isdigit() for name in behind)
    met = "sequential" if numbered else "torchvision"
    if layout not in ("auto", met):
        raise CheckpointError(
            f"The names in the file are not {layout}.",
            where="model.weights.layout",
            met=f"{met} names, such as '{next(iter(tensors))}'",
            wanted=layout,
            how="set it to 'auto'.",
        )
    if not numbered:
        return behind, met
    children = {name.split(".")[0] for name in behind}
    table = DENSENET_CHILDREN if children == set(DENSENET_CHILDREN) else RESNET_CHILDREN
    return {_named(name, table): tensor for name, tensor in behind.items()}, met


def _named(name: str, table: Mapping[str, str]) -> str:
    number, _, rest = name.partition(".")
    return f"{table.get(number, number)}.{rest}"


def load_backbone_weights(network: nn.Module, path: Path, layout: str = "auto") -> WeightReport:
    """Fill ``network.backbone`` (else the network itself) from ``path``, all of it.

    A stem for three channels is summed where the network has another number. Raises
    CheckpointError where one tensor of the backbone is missing, of another shape, or where the
    file has tensors that the backbone does not (its classifier excepted); nothing is changed then.
    """
    inner = getattr(network, "backbone", network)
    backbone = inner if isinstance(inner, nn.Module) else network
    tensors = read_tensors(path)
    given, met = known_names(tensors, layout)
    kept = {name: tensor for name, tensor in given.items() if not _of_classifier(name, backbone)}
    own = backbone.state_dict()
    wanted = [name for name in own if not name.endswith(OPTIONAL_SUFFIX)]
    fitted = {name: _fitted(kept[name], own[name]) for name in wanted if name in kept}
    faults = _faults(own, wanted, kept, fitted)
    if faults:
        raise CheckpointError(
            "These weights are not those of the backbone.",
            where=str(path),
            met=f"{sum(t is not None for t in fitted.values())} of {len(wanted)} tensors fit; "
            + "; ".join(faults[:4])
            + (f"; and {len(faults) - 4} more" if len(faults) > 4 else ""),
            wanted=f"all {len(wanted)} tensors of the backbone, by name and shape",
            how="give weights of this network (model.backbone), or choose the backbone they fit.",
        )
    with torch.no_grad():
        for name, tensor in fitted.items():
            if tensor is not None:
                own[name].copy_(tensor)
    return WeightReport(
        file=path.name,
        layout=met,
        loaded=len(fitted),
        total=len(wanted),
        ignored=len(given) - len(kept),
        tensors_sha256=tensors_sha256(tensors),
    )


def _of_classifier(name: str, backbone: nn.Module) -> bool:
    config = getattr(backbone, "default_cfg", None) or {}
    own = config.get("classifier", ())
    names = (*CLASSIFIERS, *([own] if isinstance(own, str) else own))
    return any(name.startswith(f"{classifier}.") for classifier in names)


def _fitted(tensor: Tensor, own: Tensor) -> Tensor | None:
    """``tensor`` in the shape of ``own``: as it is, or a summed stem; None where neither fits."""
    if tensor.shape == own.shape:
        return tensor
    is_stem = tensor.ndim == own.ndim == 4 and tensor.shape[1] == RGB
    summed = summed_stem(tensor, own.shape[1]) if is_stem else tensor
    return summed if summed.shape == own.shape else None


def _faults(
    own: Mapping[str, Tensor],
    wanted: Sequence[str],
    kept: Mapping[str, Tensor],
    fitted: Mapping[str, Tensor | None],
) -> list[str]:
    faults = []
    for name in wanted:
        if name not in kept:
            near = nearest_name(name, kept)
            faults.append(f"'{name}' is missing" + (f" (nearest '{near}')" if near else ""))
        elif fitted[name] is None:
            shapes = f"{list(kept[name].shape)} instead of {list(own[name].shape)}"
            faults.append(f"'{name}' is {shapes}")
    return faults + [
        f"'{name}' is unknown"
        for name in kept
        if name not in own and not name.endswith(OPTIONAL_SUFFIX)
    ]


def start_weights(
    network: nn.Module,
    model: PretrainedModelSection,
    stages: Sequence[StageSection],
    *,
    fetch: str,
    reporter: Reporter | None = None,
) -> WeightReport | None:
    """Load what the preset says a training starts from; None where it starts from scratch.

    ``fetch`` is the command that would fetch the weights, to be named in refusals.

    Raises UsageError, naming the two ways out, where weights that the preset names are not there,
    or where a stage would freeze a part of the backbone that holds random numbers.
    """
    reporter = reporter or Silent()
    if model.from_scratch:
        reporter.say("Backbone: random weights (from scratch); everything trains.")
        return None
    found = _local_file(model.weights)
    if found is None:
        frozen = _frozen_parts(network, stages)
        if not model.weights.repository and not frozen:
            reporter.say("Backbone: random weights; the preset names none.")
            return None
        raise _no_weights(model.weights, frozen, fetch)
    path, record = found
    report = load_backbone_weights(network, path, model.weights.layout)
    if record is not None:
        if record.tensors_sha256 != report.tensors_sha256:
            raise CheckpointError(
                "The fetched weights changed since they were fetched.",
                where=str(path),
                met=f"sha256 {report.tensors_sha256}",
                wanted=record.tensors_sha256,
                how=f"'{fetch} --force' fetches them again.",
            )
        report = replace(
            report,
            repository=record.repository,
            revision=record.resolved_revision,
            licence=record.licence_text(),
        )
    else:
        report = replace(report, licence=model.weights.licence)
    reporter.say(report.text())
    return report


def _local_file(weights: WeightsSection) -> tuple[Path, WeightsRecord | None] | None:
    if weights.path is not None:
        path = weights.path.expanduser()
        if not path.is_file():
            raise UsageError(
                "There are no weights at the path that the preset names.",
                where="model.weights.path",
                met=str(path),
                wanted="a .safetensors or .pt file",
            )
        return path, None
    return fetched_weights(weights)


def _frozen_parts(network: nn.Module, stages: Sequence[StageSection]) -> list[str]:
    """Parts of the backbone that some stage freezes."""
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        return []
    return [part for part in backbone_parts(backbone) if any(part not in s.rates for s in stages)]


def _no_weights(weights: WeightsSection, frozen: Sequence[str], fetch: str) -> UsageError:
    met = f"'{weights.file}' of {weights.repository} was not fetched"
    if not weights.repository:
        met = "the preset names no weights"
    if frozen:
        met += f"; stages freeze {', '.join(frozen)}, which would stay random"
    return UsageError(
        "The weights that this training starts from are not on this machine.",
        where="model.weights",
        met=met,
        wanted="weights for the backbone",
        how=f"'{fetch}' fetches them (nothing else goes over the network), or "
        "'--from-scratch' trains everything from random weights.",
    )
