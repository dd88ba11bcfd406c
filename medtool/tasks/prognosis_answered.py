"""What stands for the network of a prognosis, and its passes, where another engine answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from medtool.core.errors import UsageError
from medtool.tasks.prognosis_exported import (
    AFTER,
    BEFORE,
    COVARIATES,
    FIELD,
    HEAD_MASKS,
    MASKS,
    RISKS,
    dropped_features,
    masks_of_passes,
    row_width,
    skeleton,
)
from medtool.tasks.prognosis_pass_maps import TUMOUR, chances_of
from medtool.tasks.segmentation_exported import IMAGE, LOGITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.predict.engines.contract import Engine
    from medtool.tasks.prognosis_settings import PrognosisSettings

# Memory that the maps of the passes of one call may take, roughly.
BYTES_OF_A_CALL = 512 * 2**20
BYTES_OF_A_VALUE = 4
# So many maps of full resolution live at a time.
MAPS_AT_A_TIME = 3


class AnsweredPrognosis(nn.Module):
    """In the place of the network; ``predict`` asks its ``passes``."""

    def __init__(self, engine: Engine, settings: PrognosisSettings, models: int = 1) -> None:
        super().__init__()
        self.engine = engine
        self.models = models
        # Of the network only shapes and dropouts: no weights, nothing to be moved or saved.
        self._shapes = (skeleton(settings),)

    def passes(
        self,
        keys: tuple[Tensor, Tensor] | None,
        volume_ml: float,
        covariates: Tensor,
    ) -> EnginePasses:
        """The passes over one case; without ``keys``, (passes) of the decoder and of the head,
        one in which nothing is dropped. Raises UsageError where the file has no passes.
        """
        return EnginePasses(self, self._shapes[0], keys, volume_ml, covariates)


class EnginePasses:
    """All passes over images as they come, as ``prognosis_passes.Passes`` by PyTorch."""

    def __init__(
        self,
        answered: AnsweredPrognosis,
        network: Any,
        keys: tuple[Tensor, Tensor] | None,
        volume_ml: float,
        covariates: Tensor,
    ) -> None:
        self.engine, self.models = answered.engine, answered.models
        self.network = network
        self.count = 1 if keys is None else len(keys[0])
        self.masks = self._masks(keys)
        self.fixed = {FIELD: np.array([volume_ml], np.float32)}
        if COVARIATES in self.engine.input_names:
            self.fixed[COVARIATES] = covariates.numpy().astype(np.float32)
        width = self.models * (row_width(network) + 1)
        self.before = np.zeros((self.count, width), np.float32)
        self.found = np.zeros((self.count, self.models))
        self.tumour = np.zeros((self.count, self.models), np.int64)
        self.voxels = 0

    def _masks(self, keys: tuple[Tensor, Tensor] | None) -> dict[str, NDArray[Any]]:
        has_masks = MASKS in self.engine.input_names
        if keys is None:
            widths = self._widths() if has_masks else {}
            return {name: np.ones((1, width), np.float32) for name, width in widths.items()}
        if not has_masks:
            raise UsageError(
                "This file was exported without Monte Carlo passes.",
                met=f"infer.passes = {self.count}",
                wanted="infer.passes = 0",
                how="'medtool optimize' of a checkpoint whose preset has passes exports them.",
            )
        decoder, head = masks_of_passes(self.network, *keys)
        return {MASKS: decoder.numpy(), HEAD_MASKS: head.numpy()}

    def _widths(self) -> dict[str, int]:
        """How wide the masks are."""
        return {
            MASKS: dropped_features(self.network),
            HEAD_MASKS: sum(self.network.head.widths),
        }

    def __call__(self, images: Tensor) -> Tensor:
        """As ``prognosis_passes.Passes``: means over the passes (n, outputs + 2, ...)."""
        total = torch.zeros(())
        at_once = self._at_once(images)
        for start in range(0, self.count, at_once):
            passes = slice(start, min(start + at_once, self.count))
            found = self.engine.run(
                {
                    IMAGE: images.numpy(),
                    **self.fixed,
                    BEFORE: self.before[passes],
                    **{name: mask[passes] for name, mask in self.masks.items()},
                },
                [LOGITS, RISKS, AFTER],
            )
            self.before[passes] = found[AFTER]
            self.found[passes] = found[RISKS].reshape(-1, self.models)
            total = total + self._summed(torch.from_numpy(found[LOGITS]), len(images), passes)
        self.voxels += images[:, 0].numel()
        return total / (self.count * self.models)

    def _summed(self, logits: Tensor, images: int, passes: slice) -> Tensor:
        chances, tumour, entropy = chances_of(logits, exclusive=self.network.exclusive)
        own = torch.cat([chances, tumour**2, entropy], dim=1)
        by_pass = (images, -1)
        counts = (tumour > TUMOUR).flatten(1).sum(1).reshape(by_pass).sum(0)
        self.tumour[passes] += counts.numpy().reshape(-1, self.models)
        return own.reshape(*by_pass, *own.shape[1:]).sum(1)

    def _at_once(self, images: Tensor) -> int:
        """Passes of one call, so that their maps fit into memory."""
        features = int(self.network.encoder.features[0])
        own = images[:, 0].numel() * features * MAPS_AT_A_TIME * BYTES_OF_A_VALUE * self.models
        return max(1, min(self.count, BYTES_OF_A_CALL // own))

    def risks(self) -> NDArray[np.float64]:
        """(passes,) risks of the case, whose images have been looked at; all of one model first."""
        return self.found.T.reshape(-1)

    def tumour_shares(self) -> NDArray[np.float64]:
        """(passes,) share of the looked-at voxels that a pass takes for tumour."""
        return self.tumour.T.reshape(-1) / max(1, self.voxels)
