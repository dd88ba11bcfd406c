"""The table of verbs: the one place where a verb is registered.

A verb's function stands in ``medtool.cli.<module>`` as ``command``; its module is imported only
when the verb is called, so that the help page needs nothing but this table.
"""

from __future__ import annotations

from typing import NamedTuple

# The groups of the help page, in their order.
FROM_SCANS = "From scans to answers"
LEARN = "Learn"
LOOK = "Look"


class Verb(NamedTuple):
    """A row: the word, the module under ``medtool.cli``, its group and line on the help page.

    ``resume`` says how to go on after Ctrl-C, ``interrupted`` what is there then.
    """

    name: str
    module: str
    group: str
    summary: str
    resume: str = "run the same command again."
    interrupted: str = "what was finished is kept."


class GlobalOption(NamedTuple):
    """An option of ``medtool`` itself: all its names, and its line on the help page."""

    names: str
    summary: str


VERSION = GlobalOption("--version", "Print the version.")
QUIET = GlobalOption("--quiet, -q", "Results, warnings and errors only.")
HELP = GlobalOption("--help, -h", "Show this page, or that of a command.")
GLOBAL_OPTIONS = (VERSION, QUIET, HELP)

VERBS: tuple[Verb, ...] = (
    Verb("check", "check", FROM_SCANS, "Say of every series and study whether it can be used."),
    Verb(
        "preprocess",
        "preprocess",
        LEARN,
        "Prepare every study into the cache; train does so by itself.",
    ),
    Verb(
        "infer",
        "infer",
        FROM_SCANS,
        "Answer for every study in folders, files or zip archives.",
        resume="run the same command with --continue.",
    ),
    Verb("evaluate", "evaluate", FROM_SCANS, "Score predictions, a run or a model; compare two."),
    Verb(
        "train",
        "train",
        LEARN,
        "Train, score and report: from scans and labels to a model.",
        resume="run the same command again; a run that has begun goes on with --resume RUN.",
    ),
    Verb("fetch", "fetch", LEARN, "Fetch the weights that a task's training starts from."),
    Verb(
        "import",
        "import_model",
        LEARN,
        "Turn a model that another program trained into a checkpoint.",
    ),
    Verb(
        "export",
        "export_model",
        LEARN,
        "Write a checkpoint as a model of another program.",
    ),
    Verb(
        "optimize",
        "optimize",
        LEARN,
        "Make a model smaller and faster, and prove that it is as good.",
        interrupted="no model was written.",
    ),
    Verb(
        "bench",
        "bench",
        LOOK,
        "Time a model in every engine that is installed here.",
        interrupted="no times were written.",
    ),
    Verb("demo", "demo", LOOK, "Write a synthetic cohort and run the main commands on it."),
    Verb("tasks", "tasks", LOOK, "List the tasks: what each answers, and which cannot be loaded."),
    Verb("presets", "presets", LOOK, "List presets, or show one with the origin of each value."),
    Verb("runs", "runs", LOOK, "List runs, each with its metric and interval."),
    Verb(
        "inspect-checkpoint",
        "inspect_checkpoint",
        LOOK,
        "Say what a model is; verify it, compare it with another.",
    ),
    Verb("doctor", "doctor", LOOK, "Say what this machine can do; prove a model on it."),
)
