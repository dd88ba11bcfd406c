"""What README and docs/ say: their commands, links, and the playground in which commands run."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"(?:<!-- (?P<mark>[^>]*?) -->\n)?```(?P<kind>\w*)\n(?P<body>.*?)```", re.DOTALL)
# A block that is not run says so, and why, in a comment before it.
SHOWN_ONLY = "shown only: "
# A block that stands on another page as well, where its commands run: "runs on docs/x.md".
RUNS_ON = re.compile(r"runs on ([\w./-]+)$")
# A block whose last command ends otherwise than with 0: "ends with 3: why".
ENDS_WITH = re.compile(r"ends with (\d+): ")

# Code within a line or a paragraph.
INLINE = re.compile(r"`([^`]+)`")
# Words that stand for something: TASK, DIR, C.safetensors, key=VALUE.
STANDS_FOR = re.compile(r"\b[A-Z][A-Z_]*\b")
GENERATED = re.compile(r"<!-- generated: .*?<!-- end -->", re.DOTALL)

# Makes every training of the playground a matter of seconds; the values of presets stay below it.
TINY_PROJECT = """\
[data.preparation]
size_px = 64

[model]
backbone = "test_resnet"
from_scratch = true
hidden_features = 16

[train]
epochs = 2
test_share = 0.25

[report]
worst_cases = 2
"""


class Command(NamedTuple):
    """A line of a shell block, and the exit status that it has."""

    text: str
    status: int

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def shell_blocks(page: Path) -> list[tuple[str, list[Command]]]:
    """(mark, commands) of every shell block."""
    blocks = []
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        if match["kind"] not in ("sh", "bash", "shell", "console"):
            continue
        mark = match["mark"] or ""
        ends = ENDS_WITH.match(mark)
        text = match["body"].replace("\\\n", " ")
        lines = [line.strip() for line in text.splitlines()]
        commands = [Command(line, 0) for line in lines if line and not line.startswith("#")]
        if ends and commands:
            commands[-1] = commands[-1]._replace(status=int(ends[1]))
        blocks.append((mark, commands))
    return blocks


def commands_to_run(page: Path) -> list[Command]:
    return [
        command
        for mark, commands in shell_blocks(page)
        if not mark.startswith(SHOWN_ONLY) and not RUNS_ON.match(mark)
        for command in commands
    ]


def inline_code(page: Path) -> list[str]:
    """What stands between backticks in the text that people wrote, on one line each."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    paragraphs = re.split(r"\n\s*\n|\n\|", GENERATED.sub("", text))
    found = [code for paragraph in paragraphs for code in INLINE.findall(paragraph)]
    return [" ".join(code.split()) for code in found]


def commands_in_text(page: Path) -> list[list[str]]:
    """The words behind ``medtool`` of commands in blocks that are no shell's, and so not run."""
    lines = [line for block in _blocks(page, "text") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("medtool ")]


def python_blocks(page: Path) -> list[str]:
    """The Python programs of a page."""
    return _blocks(page, "python")


def toml_blocks(page: Path) -> list[str]:
    """The presets and settings of a page."""
    return _blocks(page, "toml")


def _blocks(page: Path, kind: str) -> list[str]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [match["body"] for match in found if match["kind"] == kind]


def write_playground(folder: Path) -> Path:
    """A tiny cohort with what the pages speak of: scans, labels, two runs, answers, an archive."""
    import torch
    from medtool_brainmet.demo import DemoOptions, write_cohort

    from medtool.verbs.infer import InferOptions, infer
    from medtool.verbs.options import RunOptions
    from medtool.verbs.train import TrainOptions, train

    write_cohort(folder, 0, DemoOptions(patients=12, size_px=64, workers=0))
    (folder / "medtool.toml").write_text(TINY_PROJECT, encoding="utf-8")
    patients = sorted((folder / "CTs").iterdir())
    for patient in patients[:3]:
        shutil.copytree(patient, folder / "scans" / patient.name)
    shutil.make_archive(str(folder / "scans"), "zip", folder / "scans")
    torch.save({"conv1.weight": torch.zeros(2, 2)}, folder / "ResNet50.pt")
    for seed, name in enumerate(("first", "second")):
        train(
            TrainOptions(
                "brainmet",
                preset="demo",
                assignments=(f"train.seed={seed}",),
                run=RunOptions(run=name, workers=0),
            )
        )
    one_process = RunOptions(workers=0)
    for name, run in (("answers", "first"), ("others", "second")):
        checkpoint = Path("runs/brainmet") / run
        infer(InferOptions((Path("CTs"),), checkpoint, Path(name), run=one_process))
    return folder
