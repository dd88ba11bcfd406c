"""Everything that medtool raises on purpose, and the exit status of each.

MedtoolError                    2
├── UsageError                  2   wrong usage
│   ├── PresetError             2   one or more faults in a preset
│   ├── LabelsError             2   the table of labels cannot be used
│   ├── UnknownNameError        2   no such task, preset, column, ...
│   ├── CheckpointError         2   a file that is no usable checkpoint
│   └── OutputExistsError       2   would overwrite without --force
├── InputError                  3   no usable input
│   └── CaseRefused             3   one case cannot be used; has a reason code
├── GateError                   4   a gate refused
│   └── LeakageError            4   patients or pixels on both sides of a split
├── MachineError                5   no such device, disk full, missing package
├── Interrupted               130   the user stopped it
└── EndedElsewhere              2   another process said why; its status

Anything else that escapes is a bug, is shown as one, and ends with 70.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class ExitStatus(IntEnum):
    """What the process tells its caller."""

    DONE = 0
    SOME_CASES_FAILED = 1
    USAGE = 2
    NO_INPUT = 3
    GATE = 4
    MACHINE = 5
    # EX_SOFTWARE of BSD's sysexits: no refusal of ours, a bug.
    BUG = 70
    INTERRUPTED = 130


STATUS_MEANINGS: Mapping[ExitStatus, str] = {
    ExitStatus.DONE: "Done.",
    ExitStatus.SOME_CASES_FAILED: "Done, but some cases were refused or failed; they are listed.",
    ExitStatus.USAGE: "Wrong usage, preset, labels or checkpoint.",
    ExitStatus.NO_INPUT: "No usable input.",
    ExitStatus.GATE: "A gate refused: leakage between the parts of a split, patients seen in "
    "training, a model of synthetic scans that meets patients, or one that was made smaller and is "
    "worse than allowed.",
    ExitStatus.MACHINE: "The environment: no such device, disk full, a package missing.",
    ExitStatus.BUG: "A bug of medtool: a short message, and a log with the details.",
    ExitStatus.INTERRUPTED: "Interrupted by the user; the message says what is kept.",
}


class MedtoolError(Exception):
    """A refusal: where it happened, what was met, what was wanted, how to go on.

    ``what`` is the one-sentence summary; the other parts are optional and are printed, in this
    order, on lines of their own. Texts must never hold patients' data beyond ids and file names.
    """

    exit_status: ExitStatus = ExitStatus.USAGE

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        met: str = "",
        wanted: str = "",
        nearest: str = "",
        how: str = "",
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.met = met
        self.wanted = wanted
        self.nearest = nearest
        self.how = how

    def lines(self) -> list[str]:
        """The refusal as lines of text, summary first."""
        lines = [self.what]
        for name, text in (
            ("where", self.where),
            ("met", self.met),
            ("wanted", self.wanted),
            ("nearest", self.nearest),
            ("how to go on", self.how),
        ):
            if text:
                lines.append(f"  {name}: {text}")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __reduce__(self) -> tuple[object, ...]:
        # Workers send refusals between processes; keyword-only parts need help to survive that.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(
    kind: type[MedtoolError], args: tuple[object, ...], state: dict[str, object]
) -> MedtoolError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(MedtoolError):
    """The command, its options or its files were used in a way that cannot work."""


class PresetError(UsageError):
    """Faults in a preset; ``faults`` holds every one of them."""

    def __init__(self, what: str, *, faults: tuple[str, ...] = (), how: str = "") -> None:
        super().__init__(what, how=how)
        self.faults = faults

    def lines(self) -> list[str]:
        """Summary, then each fault, then how to go on."""
        summary, *rest = super().lines()
        return [summary, *(f"  {fault}" for fault in self.faults), *rest]


class LabelsError(UsageError):
    """The table of labels cannot be read, understood or matched."""


class UnknownNameError(UsageError):
    """A name that is not known; ``nearest`` offers one that is."""


class CheckpointError(UsageError):
    """A file that is not a checkpoint this version can use for this purpose."""


class OutputExistsError(UsageError):
    """An output exists and --force was not given."""


class InputError(MedtoolError):
    """Nothing usable among what was given."""

    exit_status = ExitStatus.NO_INPUT


class CaseRefused(InputError):
    """One case cannot be used truly; ``code`` is its stable, documented reason code."""

    def __init__(
        self,
        code: str,
        what: str,
        *,
        where: str = "",
        met: str = "",
        wanted: str = "",
        how: str = "",
    ) -> None:
        super().__init__(what, where=where, met=met, wanted=wanted, how=how)
        self.code = code


class GateError(MedtoolError):
    """A gate that protects the truth of a number refused."""

    exit_status = ExitStatus.GATE


class LeakageError(GateError):
    """Patients, or identical pixels, on both sides of a split."""


class MachineError(MedtoolError):
    """This machine lacks something: a device, space, a package, a permission."""

    exit_status = ExitStatus.MACHINE


class Interrupted(MedtoolError):
    """The user stopped it; what was done is kept."""

    exit_status = ExitStatus.INTERRUPTED


class EndedElsewhere(MedtoolError):
    """Another process of this run ended, and said why; this one ends with the same status."""

    def __init__(self, status: ExitStatus) -> None:
        super().__init__("Another process of this run ended, and said why.")
        self.exit_status = status
