"""Many passes of a prognosis with dropout at work, and what is kept of them.

A pass is one network: the same features are dropped in all slices of a case, so that what a pass
takes for the tumour's volume, and for the risk, belongs together. What all passes share is run once
(``nets.monte_carlo``), and of the passes only sums are kept, so that memory does not grow with
their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from medtool.core.records import Case, Prepared
from medtool.nets.monte_carlo import SharedPass, dropout_at_work, pass_keys
from medtool.predict.sliding_window import Windows, require_finite, sliding_window
from medtool.tasks.prognosis_answered import AnsweredPrognosis, EnginePasses
from medtool.tasks.prognosis_examples import HEAD, covariate_rows, cut_image, field_ml
from medtool.tasks.prognosis_network import PrognosisNetwork
from medtool.tasks.prognosis_pass_maps import TUMOUR, chances_of
from medtool.tasks.prognosis_places import tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.predict.model import Model
    from medtool.tasks.prognosis_settings import PrognosisSettings


@dataclass(frozen=True)
class Looked:
    """What the passes of one model say of a case, on the prepared grid.

    Means over passes: ``probability`` (outputs, z, y, x), of the whole tumour its square's
    (z, y, x) and of the entropy (z, y, x) in nats. By pass: ``risks`` and ``volumes_ml``. Without
    dropout there is one pass.
    """

    probability: NDArray[np.float32]
    tumour_square: NDArray[np.float32]
    entropy: NDArray[np.float32]
    risks: NDArray[np.float64]
    volumes_ml: NDArray[np.float64]


def look_at(settings: PrognosisSettings, model: Model, prepared: Prepared, case: Case) -> Looked:
    """Every slice or patch of a case, with as many passes as the preset says."""
    network: Any = model.network
    keys = _keys(settings, case.case_id)
    volume_ml, covariates = field_ml(prepared), covariate_rows(settings.model, [case])
    passes: _Passes | EnginePasses
    if isinstance(network, AnsweredPrognosis):
        passes = network.passes(keys, volume_ml, covariates)
    else:
        passes = _Passes(settings, network, keys, volume_ml, covariates, model.device)
    at_work = dropout_at_work(network) if settings.infer.passes else nullcontext()
    with at_work:
        sums = _sums(settings, model, prepared, passes)
        with model.autocast():
            risks = passes.risks()
    return Looked(
        probability=sums[:-2],
        tumour_square=sums[-2],
        entropy=sums[-1],
        risks=risks,
        volumes_ml=passes.tumour_shares() * volume_ml,
    )


def _keys(settings: PrognosisSettings, case_id: str) -> tuple[Tensor, Tensor] | None:
    """Of every pass the key of the decoder and of the head; None where nothing is dropped."""
    seed, count = settings.train.seed, settings.infer.passes
    if not count:
        return None
    pairs = torch.stack([pass_keys(seed, case_id, [0, HEAD], number) for number in range(count)])
    decoder, head = pairs.T
    return decoder, head


def _sums(
    settings: PrognosisSettings, model: Model, prepared: Prepared, passes: _Passes | EnginePasses
) -> NDArray[np.float32]:
    """What ``_Passes`` says of each voxel (channels, z, y, x)."""
    image = prepared.arrays["image"]
    if settings.model.patch_size_vox:
        windows = Windows(
            tuple(settings.model.patch_size_vox),
            step=settings.infer.step,
            batch=settings.infer.batch_windows,
            flat_once=False,
        )
        slabs = sliding_window(
            passes, image, windows, device=model.device, arithmetic=model.autocast
        )
        return np.concatenate([slab.logits for slab in slabs], axis=1)
    planes: list[NDArray[np.float32]] = []
    for batch in _slices(settings, image):
        with model.autocast():
            found = passes(batch.to(model.device)).float()
        require_finite(found)
        planes.append(found.cpu().numpy())
    return np.ascontiguousarray(np.concatenate(planes).swapaxes(0, 1))


def _slices(settings: PrognosisSettings, image: NDArray[Any]) -> Iterator[Tensor]:
    """Slices (n, channels, y, x) as the network sees them, some at a time."""
    every = tiles(image.shape[1:], (1, *image.shape[2:]), 1.0)
    step = settings.infer.batch_slices
    for start in range(0, len(every), step):
        cut = [cut_image(image, place, settings.model) for place in every[start : start + step]]
        yield torch.from_numpy(np.stack(cut))


class _Passes:
    """All passes over images as they come; the rows of the survival head are summed by pass."""

    def __init__(
        self,
        settings: PrognosisSettings,
        network: PrognosisNetwork,
        keys: tuple[Tensor, Tensor] | None,
        volume_ml: float,
        covariates: Tensor,
        device: torch.device,
    ) -> None:
        self.network = network
        self.suv_scale = settings.model.suv_scale
        self.count = 1 if keys is None else len(keys[0])
        self.keys = None if keys is None else keys[0].to(device)
        self.head_keys = None if keys is None else keys[1].to(device)
        self.volume_ml, self.covariates = volume_ml, covariates.to(device)
        self.rows: list[Tensor] = []
        self.tumour = torch.zeros(self.count, dtype=torch.int64, device=device)
        self.images = self.voxels = 0

    def __call__(self, images: Tensor) -> Tensor:
        """(n, outputs + 2, ...): mean probabilities, mean square of the tumour's, mean entropy.

        ``images`` (n, channels, ...) hold SUV and the CT's window, as they are prepared.
        """
        images[:, : images.shape[1] // 2] /= self.suv_scale
        total = torch.zeros((), device=images.device)
        for number, (logits, bottleneck) in enumerate(self._passes(images)):
            rows = self.network.rows(bottleneck, logits, images).sum(0).float()
            chances, tumour, entropy = chances_of(logits.float(), exclusive=self.network.exclusive)
            own = torch.cat([chances, tumour**2, entropy], dim=1)
            total = total + own
            self.tumour[number] += (tumour > TUMOUR).sum()
            if self.images:
                self.rows[number] += rows
            else:
                self.rows.append(rows)
        self.images += len(images)
        self.voxels += images[:, 0].numel()
        return total / self.count

    def _passes(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and the bottleneck's maps of each pass."""
        if self.keys is None:
            skips = self.network.encoder(images)
            yield self.network.decoder(skips)[0], skips[-1]
            return
        shared = SharedPass(self.network, images)
        for key in self.keys:
            yield shared.logits(key.expand(len(images))), shared.skips[-1]

    def risks(self) -> NDArray[np.float64]:
        """(passes,) risks of the case, whose images have been looked at."""
        rows = torch.stack(self.rows) / self.images
        field = torch.full((self.count,), self.volume_ml, device=rows.device)
        known = self.covariates.expand(self.count, -1)
        embedded = self.network.embedding(rows, field, known)
        risks: Tensor = self.network.head(embedded, self.head_keys)
        return np.asarray(risks.double().cpu())

    def tumour_shares(self) -> NDArray[np.float64]:
        """(passes,) share of the looked-at voxels that a pass takes for tumour."""
        return self.tumour.cpu().numpy() / max(1, self.voxels)


def mean_of(several: Sequence[Looked], centres: Sequence[float]) -> Looked:
    """Members of an ensemble as one: all their passes, each member counting alike.

    Risks of different networks have scales of their own: each is told beside its ``centres``, the
    mean risk of its training patients.
    """

    def mean(name: str) -> NDArray[np.float32]:
        values = [getattr(one, name) for one in several]
        return np.asarray(np.mean(values, axis=0, dtype=np.float32))

    return Looked(
        probability=mean("probability"),
        tumour_square=mean("tumour_square"),
        entropy=mean("entropy"),
        risks=np.concatenate(
            [one.risks - centre for one, centre in zip(several, centres, strict=True)]
        ),
        volumes_ml=np.concatenate([one.volumes_ml for one in several]),
    )
