"""How nnU-Net is asked from an environment of its own: folders, data sets, a process a question.

Nothing of nnU-Net is imported here; a benchmark runs its own file with the peer's Python and the
option ``--ask``, and that part imports nnU-Net alone.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / ".venv-peers"
FOLDERS = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}


@dataclass(frozen=True)
class PeerCase:
    """Files of one training case, one image a channel."""

    images: tuple[Path, ...]
    label: Path


@dataclass(frozen=True)
class PeerSet:
    """A data set as nnU-Net knows it; ``labels`` counts the background too."""

    name: str
    channels: tuple[str, ...]
    labels: int
    training: int
    cases: dict[str, PeerCase] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Its dataset.json; files stay where they are."""
        cases = self.cases or {"none": PeerCase((Path("none.nii.gz"),), Path("none.nii.gz"))}
        return {
            "channel_names": {str(n): name for n, name in enumerate(self.channels)},
            "labels": {"background": 0, **{f"class{n}": n for n in range(1, self.labels)}},
            "numTraining": self.training,
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "SimpleITKIO",
            "dataset": {
                name: {"images": [str(path) for path in case.images], "label": str(case.label)}
                for name, case in cases.items()
            },
        }


def peer_python(peers: Path) -> Path | None:
    """The Python that has nnU-Net, or None."""
    python = peers / "bin" / "python"
    return python if (peers / "bin" / "nnUNetv2_train").exists() else None


def write_sets(folder: Path, sets: Sequence[PeerSet]) -> None:
    """Give each set its folders below ``folder``; they are numbered from 1."""
    for number, each in enumerate(sets, start=1):
        name = dataset_name(number, each.name)
        for place in ("raw", "preprocessed"):
            (folder / place / name).mkdir(parents=True, exist_ok=True)
        text = json.dumps(each.document())
        (folder / "raw" / name / "dataset.json").write_text(text, encoding="utf-8")


def dataset_name(number: int, name: str) -> str:
    """A folder's name as nnU-Net wants it."""
    return f"Dataset{number:03d}_{name}"


def ask(python: Path, script: str, words: Sequence[str], folder: Path) -> Any:
    """What ``script --ask`` prints as its last line, from JSON, run by ``python``."""
    places = [f"{name}={folder / place}" for name, place in FOLDERS.items()]
    done = subprocess.run(
        ["env", *places, "nnUNet_n_proc_DA=2", str(python), script, "--ask", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"nnU-Net ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
