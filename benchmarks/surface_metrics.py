"""Surface distances beside surface-distance, MONAI and MedPy: the same numbers, and how fast.

    python benchmarks/surface_metrics.py [--peers DIR] [--data DIR]

DIR is a virtual environment with the three (benchmarks/requirements-metrics.txt;
benchmarks/.venv-metrics is taken when it is there); without it ours are timed alone. Every number
is compared on pairs of boxes and balls, on random masks, and on real ones: the labels of the
folder ``hippocampus`` in ``--data``, shifted by a voxel or two. What is timed is HD95 and surface
Dice of a pair of 200 x 512 x 512 voxels in memory; MONAI computes both by its own definition,
which is less work. All take turns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peer_process import PeerProcess, peers_at
from results import Row, begin, best_in_turn, work_folder

# Least ratios over (surface-distance, MONAI).
TARGETS = {"surface-distance": 3.5, "MONAI": 7.0}
SHAPE, QUICK_SHAPE = (200, 512, 512), (10, 24, 24)
SPACING_MM = (2.5, 0.8, 0.8)
TOLERANCE_MM = 2.0
ROUNDS = 5
# Largest difference that is none, in mm or shares, relative beyond 1: MONAI has float32.
LARGEST_DIFFERENCE = 1e-6
RANDOM_PAIRS, QUICK_RANDOM_PAIRS = 60, 3
REAL_SCANS, QUICK_REAL_SCANS = 20, 1
PEERS = Path(__file__).parent / ".venv-metrics"
DATA = Path(__file__).parents[2] / "shared" / "data"

Mask = NDArray[np.bool_]
Pair = tuple[Mask, Mask, tuple[float, float, float]]


def ours_timed(pair: Pair) -> tuple[float, float]:
    """HD95 and surface Dice."""
    from medtool.score.surface import surfel_pair

    surfaces = surfel_pair(*pair)
    return surfaces.hausdorff_mm(95), surfaces.surface_dice(TOLERANCE_MM)


def ours(pair: Pair) -> dict[str, float]:
    """The numbers of a case's row that have a peer."""
    from medtool.score.segmentation import SegmentationOptions, score_structures

    prediction, reference, spacing_mm = pair
    options = SegmentationOptions(default_tolerance_mm=TOLERANCE_MM)
    masks = (prediction.view(np.uint8), reference.view(np.uint8))
    (row,) = score_structures(*masks, spacing_mm, {"mask": (1,)}, options)
    return row


def organ(shape: tuple[int, int, int], shift: tuple[float, float, float], size: float) -> Mask:
    """A lobed body as large as a liver: about 18 cm high, 16 deep and 19 wide."""
    axes = [np.arange(n) / n - 0.5 for n in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    z, y, x = z - shift[0], y - shift[1], x - shift[2]
    angle = np.arctan2(y, x)
    lobes = 1.0 + 0.15 * np.sin(3.0 * angle) + 0.1 * np.cos(9.0 * z + 2.0 * angle)
    mask: Mask = (z / 0.18) ** 2 + (y / 0.19) ** 2 + (x / 0.23) ** 2 <= (size * lobes) ** 2
    return mask


def large_pair(shape: tuple[int, int, int]) -> Pair:
    """An organ, and one a little smaller beside it."""
    reference = organ(shape, (0.0, -0.02, -0.1), 1.0)
    return organ(shape, (0.01, -0.011, -0.09), 0.97), reference, SPACING_MM


def known_pairs() -> Iterator[tuple[str, Pair]]:
    """Boxes and balls, with cubic and with long voxels."""
    boxes = np.zeros((2, 20, 20, 20), dtype=bool)
    boxes[0, 6:15, 5:13, 5:12] = boxes[1, 5:13, 5:13, 5:13] = True
    places = np.indices((24, 24, 24))
    balls = np.zeros((2, 24, 24, 24), dtype=bool)
    for mask, centre, radius in ((balls[0], 10.5, 7), (balls[1], 11.5, 8)):
        offsets = places - np.array((11.5, centre, 11.5)).reshape(3, 1, 1, 1)
        mask |= (offsets**2).sum(axis=0) <= radius**2
    balls[0, 2:4, 2:4, 2:4] = True
    yield "boxes and balls", (*boxes, (1.0, 1.0, 1.0))
    yield "boxes and balls", (*boxes, (3.0, 1.0, 1.0))
    yield "boxes and balls", (*balls, (1.0, 1.0, 1.0))
    yield "boxes and balls", (*balls, (2.5, 0.8, 0.8))


def random_pairs(count: int) -> Iterator[tuple[str, Pair]]:
    """Noise of any density, every other pair smoothed into blobs; any size and spacing."""
    from scipy import ndimage

    generator = np.random.default_rng(20240)
    for number in range(count):
        shape = tuple(int(n) for n in generator.integers(3, 30, 3))
        # In tenths of a millimetre: distances then often are the tolerance to the last bit.
        spacing = tuple(float(s) for s in generator.integers(3, 50, 3) / 10)
        fields = generator.random((2, *shape))
        if number % 2:
            fields = ndimage.gaussian_filter(fields, (0, 1.5, 1.5, 1.5))
        masks = fields > np.quantile(fields, generator.uniform(0.3, 0.97))
        # Neither may be empty: there the packages differ by intent.
        masks[:, 0, 0, 0] = True
        yield "random masks", (masks[0], masks[1], spacing)


def real_pairs(data: Path, count: int) -> Iterator[tuple[str, Pair]]:
    """Each label of some scans, and the same shifted by one voxel or two along each axis."""
    import SimpleITK

    for path in sorted((data / "hippocampus" / "labelsTr").glob("[!.]*.nii.gz"))[:count]:
        image = SimpleITK.ReadImage(str(path))
        labels = np.rint(SimpleITK.GetArrayFromImage(image)).astype(np.uint8)
        z_mm, y_mm, x_mm = reversed(image.GetSpacing())
        for label in np.unique(labels[labels > 0]):
            mask = labels == label
            shifted = np.zeros_like(mask)
            shifted[1:, :-2, 1:] = mask[:-1, 2:, :-1]
            yield "real masks", (shifted, mask, (z_mm, y_mm, x_mm))


def load(peers: PeerProcess, pair: Pair, folder: Path) -> None:
    """Hand a pair over, by a file; one at a time is loaded there."""
    path = folder / "pair.npz"
    np.savez(path, prediction=pair[0], reference=pair[1], spacing_mm=pair[2])
    peers.ask({"load": str(path)})


def compared(peers: PeerProcess, pairs: Iterator[tuple[str, Pair]], folder: Path) -> list[Row]:
    """The largest difference of any number, by kind of masks."""
    largest: dict[str, dict[str, float]] = {}
    count: dict[str, int] = {}
    for kind, pair in pairs:
        count[kind] = count.get(kind, 0) + 1
        load(peers, pair, folder)
        row = ours(pair)
        for name, value in peers.ask({"numbers": TOLERANCE_MM}).items():
            apart = abs(row[name.split()[1]] - value) / max(1.0, abs(value))
            found = largest.setdefault(kind, {})
            found[name] = max(found.get(name, 0.0), apart)
    return [
        Row(
            f"largest difference on {count[kind]} pairs of {kind}",
            max(found.values()),
            unit="",
            most=LARGEST_DIFFERENCE,
            detail=found,
        )
        for kind, found in largest.items()
    ]


def timed(peers: PeerProcess | None, pair: Pair, folder: Path, *, quick: bool) -> list[Row]:
    """Seconds of each side on the large pair, and the ratios."""
    sides: dict[str, Callable[[], object]] = {"medtool": partial(ours_timed, pair)}
    if peers is not None:
        load(peers, pair, folder)
        for name in TARGETS:
            question = {"time": name, "tolerance_mm": TOLERANCE_MM}
            sides[name] = partial(peers.ask, question)
    seconds = best_in_turn(sides, rounds=1 if quick else ROUNDS)
    size = " x ".join(map(str, pair[0].shape))
    rows = [Row(f"HD95 and surface Dice of {size} voxels", seconds["medtool"], unit="s")]
    for name, least in TARGETS.items():
        if name in seconds:
            what, detail = f"{name} over medtool", {"seconds": seconds}
            # A small pair measures how calls are made.
            least_ratio = None if quick else least
            rows.append(
                Row(what, seconds[name] / seconds["medtool"], least=least_ratio, detail=detail)
            )
    return rows


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of real scans")


def all_pairs(data: Path, *, quick: bool) -> Iterator[tuple[str, Pair]]:
    """What every number is compared on."""
    yield from known_pairs()
    yield from random_pairs(QUICK_RANDOM_PAIRS if quick else RANDOM_PAIRS)
    yield from real_pairs(data, QUICK_REAL_SCANS if quick else REAL_SCANS)


def main() -> int:
    """Compare, measure, print, keep."""
    run = begin("surface_metrics", __doc__, ("numpy", "scipy"), add_options)
    options = run.options
    pair = large_pair(QUICK_SHAPE if options.quick else SHAPE)
    with work_folder() as work:
        if not (options.peers / "bin" / "python").exists():
            rows = timed(None, pair, work, quick=options.quick)
            return run.finish(rows, notes=["The peers are not installed: nothing was compared."])
        with peers_at(options.peers, "surface_peers.py") as peers:
            notes = [peers.said()]
            if not (options.data / "hippocampus").is_dir():
                notes.append("Real masks were not compared: there are none here.")
            rows = compared(peers, all_pairs(options.data, quick=options.quick), work)
            rows += timed(peers, pair, work, quick=options.quick)
            return run.finish(rows, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
