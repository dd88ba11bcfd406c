"""``medtool demo``: write a task's synthetic cohort and run every verb on it, as a user would.

The verbs run inside the demo's folder with the words that are shown, so that each of them can be
typed there again.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.errors import ExitStatus, OutputExistsError, UnknownNameError
from medtool.core.files import cannot_write, replace_text
from medtool.core.progress import Reporter, Silent
from medtool.core.registry import load_task
from medtool.verbs.options import RunOptions

if TYPE_CHECKING:
    from medtool.verbs.check import CheckResult
    from medtool.verbs.evaluate_result import Evaluation
    from medtool.verbs.infer import InferResult
    from medtool.verbs.inspect_checkpoint import Inspection
    from medtool.verbs.preprocess import PreprocessResult
    from medtool.verbs.train import TrainResult

# The preset that a task ships for its demo; without one its defaults are used.
PRESET = "demo"
RUN = "demo"
ANSWERS = Path("answers")
# Only a folder that holds this file is emptied by --force: it was written by a demo.
MARKER = "demo-by-medtool.txt"
MARKER_TEXT = (
    "This folder was written by 'medtool demo', which empties it when called with --force.\n"
    "Its scans are synthetic; a model that learned from them must not answer for patients.\n"
)


@dataclass(frozen=True)
class DemoOptions:
    """What is asked of ``demo``."""

    task: str
    folder: Path
    seed: int = 0
    force: bool = False
    run: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True)
class DemoStep:
    """One command that was run: as it is typed, what came of it, and how long it took."""

    command: str
    status: ExitStatus
    outcome: str
    seconds: float


@dataclass(frozen=True)
class DemoResult:
    """Every step, and where the report and the run are."""

    folder: Path
    run: Path
    report: Path | None
    steps: tuple[DemoStep, ...]
    scores: dict[str, Any]

    @property
    def status(self) -> ExitStatus:
        """The worst status of the steps."""
        return max((step.status for step in self.steps), default=ExitStatus.DONE)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {
            "folder": str(self.folder),
            "run": str(self.run),
            "report": None if self.report is None else str(self.report),
            "steps": [{**vars(step), "status": int(step.status)} for step in self.steps],
            "scores": self.scores,
        }


def demo(options: DemoOptions, reporter: Reporter | None = None) -> DemoResult:
    """Write the cohort into ``options.folder`` and run check, preprocess, train, infer, evaluate
    and inspect-checkpoint on it.

    The working folder of the process is ``options.folder`` meanwhile. Raises UnknownNameError (no
    such task), OutputExistsError (the folder holds something), MachineError, and whatever a verb
    refuses.
    """
    reporter = reporter or Silent()
    task_class = load_task(options.task)
    folder = options.folder.absolute()
    _make_room(folder, force=options.force)
    preset = _demo_preset(options.task, task_class.__module__, folder)
    from medtool.config import resolve

    task = task_class(resolve(task_class, preset, folder=folder).settings)
    began = time.perf_counter()
    reporter.say(f"Writing a synthetic cohort into {options.folder}.")
    task.write_demo(folder, options.seed, reporter)
    written_s = time.perf_counter() - began
    files = sum(1 for path in folder.rglob("*") if path.is_file())
    reporter.say(f"{files} files in {written_s:.0f} s.")
    run = _Steps(options, preset, reporter)
    run.done.append(
        DemoStep("", ExitStatus.DONE, f"wrote the cohort, seed {options.seed}", written_s)
    )
    reporter.say(f"$ cd {options.folder}")
    with contextlib.chdir(folder):
        run.check()
        run.preprocess()
        trained = run.train()
        run.infer(trained)
        run.evaluate(trained)
        run.inspect(trained)
        report = None if trained.report is None else trained.report.absolute()
        return DemoResult(
            folder, trained.run.absolute(), report, tuple(run.done), dict(trained.scores)
        )


def _make_room(folder: Path, *, force: bool) -> None:
    """An empty folder with the marker in it; only a demo's own folder is ever emptied."""
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise OutputExistsError(
                "The folder for the demo holds something else.",
                where=str(folder),
                wanted="a new folder, or one that an earlier demo wrote",
                how="name another folder.",
            )
        if not force:
            raise OutputExistsError(
                "A demo was written here before.",
                where=str(folder),
                how="--force empties the folder and begins anew.",
            )
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    replace_text(folder / MARKER, MARKER_TEXT)


def _demo_preset(task: str, module: str, folder: Path) -> str | None:
    """The task's preset for the demo, if it ships one."""
    from medtool.config import find_preset

    try:
        return find_preset(task, module, PRESET, folder).name
    except UnknownNameError:
        return None


class _Steps:
    """The verbs one after another, each with the words that a user would type."""

    def __init__(self, options: DemoOptions, preset: str | None, reporter: Reporter) -> None:
        self.options = options
        self.preset = preset
        self.reporter = reporter
        self.done: list[DemoStep] = []
        self._preset_words = f" --preset {preset}" if preset else ""

    @contextlib.contextmanager
    def _step(self, command: str) -> Iterator[Callable[[ExitStatus, str], None]]:
        self.reporter.say("")
        self.reporter.say(f"$ {command}")
        began = time.perf_counter()

        def ended(status: ExitStatus, outcome: str) -> None:
            self.done.append(DemoStep(command, status, outcome, time.perf_counter() - began))
            self.reporter.say(outcome)

        yield ended

    def check(self) -> CheckResult:
        from medtool.verbs.check import check
        from medtool.verbs.check_text import check_summary
        from medtool.verbs.task_data import DataOptions

        task = self.options.task
        with self._step(f"medtool check {task}{self._preset_words} --csv series.csv") as ended:
            result = check(
                DataOptions(task, preset=self.preset),
                csv=Path("series.csv"),
                workers=self.options.run.workers,
                reporter=self.reporter,
            )
            ended(result.status, check_summary(result.document))
        return result

    def preprocess(self) -> PreprocessResult:
        from medtool.verbs.preprocess import preprocess
        from medtool.verbs.task_data import DataOptions

        task = self.options.task
        with self._step(f"medtool preprocess {task}{self._preset_words}") as ended:
            result = preprocess(
                DataOptions(task, preset=self.preset),
                workers=self.options.run.workers,
                reporter=self.reporter,
            )
            ready = len(result.report.paths) if result.report is not None else 0
            ended(result.status, f"{ready} studies are ready in {result.cache}.")
        return result

    def train(self) -> TrainResult:
        from medtool.verbs.train import TrainOptions, train

        task, seed = self.options.task, self.options.seed
        words = f"medtool train {task}{self._preset_words} --run {RUN} --seed {seed}"
        with self._step(words) as ended:
            result = train(
                TrainOptions(
                    task=task,
                    preset=self.preset,
                    run=RunOptions(
                        run=RUN,
                        seed=seed,
                        device=self.options.run.device,
                        workers=self.options.run.workers,
                    ),
                    command=words,
                ),
                self.reporter,
            )
            status = ExitStatus.SOME_CASES_FAILED if result.failures else ExitStatus.DONE
            ended(status, f"The report is {result.report}.")
        return result

    def infer(self, trained: TrainResult) -> InferResult:
        from medtool.verbs.infer import InferOptions, infer

        run = _relative(trained.run)
        words = f"medtool infer . --checkpoint {run} -o {ANSWERS}"
        with self._step(words) as ended:
            result = infer(
                InferOptions(
                    sources=(Path(),),
                    checkpoint=run,
                    output=ANSWERS,
                    run=RunOptions(
                        device=self.options.run.device, workers=self.options.run.workers
                    ),
                    command=words,
                ),
                self.reporter,
            )
            told = f"{result.ok} answered, {result.refused} refused, {result.failed} failed"
            ended(result.status, f"{told}: {result.table}")
        return result

    def evaluate(self, trained: TrainResult) -> Evaluation:
        from medtool.config.sections import DataSection
        from medtool.core.records import Source
        from medtool.data.cohort import labels_file
        from medtool.verbs.evaluate import EvaluateOptions, evaluate

        labels = labels_file(Source((Path(),)), DataSection())
        named = f" --labels {labels}" if labels is not None else ""
        run = _relative(trained.run)
        words = f"medtool evaluate {ANSWERS} --checkpoint {run}{named} --seen leave-out"
        with self._step(words) as ended:
            result = evaluate(
                EvaluateOptions(
                    subjects=(ANSWERS,),
                    checkpoints=(run,),
                    labels=labels,
                    seen="leave-out",
                    command=words,
                ),
                self.reporter,
            )
            lines = [
                f"{name} {value} ({interval}), n = {n}"
                for name, value, interval, n, *_ in result.evaluated[0].lines()[1:4]
            ]
            ended(ExitStatus.DONE, "; ".join(lines))
        return result

    def inspect(self, trained: TrainResult) -> Inspection:
        from medtool.verbs.inspect_checkpoint import inspect_checkpoint

        run = _relative(trained.run)
        with self._step(f"medtool inspect-checkpoint {run} --verify") as ended:
            result = inspect_checkpoint(run, None, verify=True)
            size_mb = result.header.size_bytes / 1e6
            whole = "intact" if not result.damaged else "DAMAGED"
            ended(ExitStatus.DONE, f"{result.path}: {size_mb:.1f} MB, {whole}.")
        return result


def _relative(path: Path) -> Path:
    """As short as a user in the demo's folder would type it."""
    whole = path.absolute()
    return whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else path
