"""Backbones by timm's names: made without a download, with parts that stages can name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from medtool.core.errors import UnknownNameError, UsageError
from medtool.core.names import nearest_name
from medtool.nets.timm_models import timm

# What timm's families call the container of their stages or blocks.
STAGE_CONTAINERS = ("blocks", "stages", "layers", "features")
# What they call stages that stand in the model itself: layer1, s1, stage_1, ...
STAGE_NAME = re.compile(r"(layer|stage_?|stages_|s)\d+")

# Shrinks images between two blocks of a DenseNet: it belongs to the block before it.
TransitionLayer = timm.models.densenet.DenseTransition


@dataclass(frozen=True)
class Step:
    """One of the steps that together are the backbone; ``part`` names what it belongs to."""

    part: str
    modules: tuple[nn.Module, ...]
    run: Callable[[Tensor], Tensor]


class LooseParameters(nn.Module):
    """Parameters that a model holds directly (class token, positions), as a part of their own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)


def require_model(name: str, *, where: str = "model.backbone") -> None:
    """Raises UnknownNameError where timm has no model called ``name``."""
    if not timm.is_model(name):
        known = timm.list_models()
        raise UnknownNameError(
            f"timm has no model named '{name}'.",
            where=where,
            met=name,
            wanted=f"one of its {len(known)} models, such as resnet50",
            nearest=nearest_name(name, known),
        )


def create_backbone(name: str, *, channels: int, size_px: int | None = None) -> nn.Module:
    """The timm model ``name`` with random weights: images (n, channels, rows, columns) in,
    features (n, backbone_features) out.

    ``size_px`` is told to models that are built for one size of image. Raises UnknownNameError
    for a name timm does not have, UsageError for a model that cannot be built so.
    """
    require_model(name)
    fixed = getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False)
    options: dict[str, Any] = {"img_size": size_px} if fixed and size_px else {}
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=False, in_chans=channels, num_classes=0, **options
        )
    except (TypeError, RuntimeError, ValueError, AssertionError) as error:
        raise UsageError(
            f"The backbone '{name}' cannot be built for images of {channels} channel(s).",
            where="model.backbone",
            met=f"{type(error).__name__}: {error}",
            how="choose another timm model, such as resnet50.",
        ) from error
    return model


def backbone_features(model: nn.Module) -> int:
    """Length of the feature vector that ``model`` gives for an image."""
    # Some families widen their features after the last stage; head_hidden_size is that width.
    return int(getattr(model, "head_hidden_size", None) or model.num_features)  # type: ignore[arg-type]


def backbone_parts(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Parts from the input on: ``stem``, ``layer1`` ... ``layerN``, and ``neck`` where a model
    has parameters after its last stage; together all parameters.
    """
    stem: list[nn.Module] = []
    layers: list[list[nn.Module]] = []
    neck: list[nn.Module] = []
    if next(model.parameters(recurse=False), None) is not None:
        stem.append(LooseParameters(model))
    for module, is_stage in _children_by_stage(model):
        if next(module.parameters(), None) is None:
            continue
        if is_stage:
            layers.append([module])
        elif isinstance(module, TransitionLayer):
            layers[-1].append(module)
        else:
            (neck if layers else stem).append(module)
    parts = {"stem": stem, **{f"layer{n}": layer for n, layer in enumerate(layers, 1)}}
    return {name: modules for name, modules in {**parts, "neck": neck}.items() if modules}


def _children_by_stage(model: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """The modules that make up ``model``, each with whether it is one of its stages."""
    for name, child in model.named_children():
        if name in STAGE_CONTAINERS and isinstance(child, (nn.Sequential, nn.ModuleList)):
            for stage in child:
                # A single layer between stages (DenseNet's first and last) is none itself.
                is_stage = any(next(c.parameters(), None) is not None for c in stage.children())
                yield stage, is_stage and not isinstance(stage, TransitionLayer)
        else:
            yield child, STAGE_NAME.fullmatch(name) is not None


def backbone_steps(model: nn.Module) -> list[Step]:
    """The backbone as steps to be run one after the other.

    A ResNet has one step a part, so that what is frozen at its beginning can be computed apart;
    any other model is one step.
    """
    if not isinstance(model, timm.models.resnet.ResNet):
        parts = backbone_parts(model)
        last = list(parts)[-1]
        return [Step(last, tuple(m for modules in parts.values() for m in modules), model)]
    steps = [Step("stem", (model.conv1, model.bn1), lambda x: _resnet_stem(model, x))]
    for name in ("layer1", "layer2", "layer3", "layer4"):
        layer = getattr(model, name)
        steps.append(Step(name, (layer,), layer))
    steps.append(Step("pool", (), lambda x: model.forward_head(x)))
    return steps


def _resnet_stem(model: nn.Module, images: Tensor) -> Tensor:
    stem: Tensor = model.maxpool(model.act1(model.bn1(model.conv1(images))))  # type: ignore[operator]
    return stem


def summed_stem(weight: Tensor, channels: int) -> Tensor:
    """A stem's weights (out, 3, rows, columns) for an input of ``channels`` channels.

    A convolution is linear: for an image that stood in all three channels the sum over them is
    exact for one channel. For more channels each gets an equal share of that sum.
    """
    total = weight.sum(dim=1, keepdim=True)
    return total if channels == 1 else (total / channels).repeat(1, channels, 1, 1)


def frozen_steps(steps: list[Step]) -> int:
    """How many leading steps do not learn, so that no gradient has to pass through them."""
    for number, step in enumerate(steps):
        if any(p.requires_grad for module in step.modules for p in module.parameters()):
            return number
    return len(steps)


def run_steps(steps: list[Step], images: Tensor) -> Tensor:
    """``images`` (n, channels, rows, columns), or what the steps before gave, through ``steps``."""
    values = images
    for step in steps:
        values = step.run(values)
    return values
