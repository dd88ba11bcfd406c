"""What of a model's own [optimize] a preset of --prune changes, and what is said of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from listening import Listening
from optimised import write_heart

from medtool.config.optimize_section import OptimizeSection
from medtool.core.checkpoint import read_header
from medtool.verbs.optimize_options import OptimizeOptions
from medtool.verbs.optimize_settings import asked_task

STRICT = (
    "optimize.judged_by=interval",
    "optimize.passes_correlation=0.99",
    'optimize.float_layers=["decoder.seg_layers.0"]',
    'optimize.formats=["int8"]',
    "optimize.prune.round_to=2",
    "optimize.prune.distil_weight=0.25",
)


def asked(
    folder: Path,
    *own: str,
    said: Listening | None = None,
    prune: str | None = "pruned",
    **more: object,
) -> OptimizeSection:
    """The settings of a model that was trained with ``own``."""
    header = read_header(write_heart(folder / "model.safetensors", *own))
    options = OptimizeOptions(
        folder / "model.safetensors",
        folder / "out",
        prune=prune,
        **more,  # type: ignore[arg-type]
    )
    return asked_task(header, options, said or Listening()).settings.optimize


def test_a_preset_of_pruning_changes_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    """From a fault: it took the place of the whole section, of a strict gate too."""
    said = Listening()
    found = asked(tmp_path, *STRICT, said=said)
    assert (found.judged_by, found.passes_correlation) == ("interval", 0.99)
    assert (found.float_layers, found.formats) == (["decoder.seg_layers.0"], ["int8"])
    assert found.prune.distil_weight == 0.25
    # What the preset says.
    assert (found.tolerance, found.prune.share, found.prune.round_to) == (0.02, 0.35, 8)
    (line,) = said.lines
    for text in (
        "tolerance = 0.02 (was not set)",
        "share = 0.35 (was 0.0)",
        "round_to = 8 (was 2)",
    ):
        assert text in line
    assert "judged_by" not in line and "epochs" not in line


def test_a_gate_that_becomes_looser_than_the_models_own_is_warned_of(tmp_path: Path) -> None:
    said = Listening()
    assert asked(tmp_path, "optimize.tolerance=0.001", said=said).tolerance == 0.02
    (_, warned) = said.lines
    assert "lets more be lost" in warned and "tolerance 0.02 in place of 0.001" in warned
    preset = tmp_path / "loose.toml"
    preset.write_text(
        'extends = "pruned"\n[optimize]\njudged_by = "estimate"\npasses_correlation = 0.5\n'
        "passes_mean = 0.5\ntolerance = 0.0005\n",
        encoding="utf-8",
    )
    said.lines.clear()
    found = asked(tmp_path, *STRICT, "optimize.tolerance=0.001", said=said, prune=str(preset))
    assert (found.tolerance, found.judged_by, found.prune.share) == (0.0005, "estimate", 0.35)
    warned = "\n".join(said.lines[1:])
    for text in (
        'judged_by "estimate" in place of "interval"',
        "passes_correlation 0.5 in place of 0.99",
        "passes_mean 0.5 in place of 0.01",
    ):
        assert text in warned
    assert "tolerance" not in warned


def test_the_command_line_stands_above_the_preset(tmp_path: Path) -> None:
    said = Listening()
    found = asked(
        tmp_path,
        said=said,
        tolerance=0.003,
        assignments=("optimize.prune.steps=1", "optimize.judged_by=interval"),
    )
    assert (found.tolerance, found.prune.steps, found.judged_by) == (0.003, 1, "interval")
    assert "share" in said.lines[0]
    assert "tolerance" not in said.lines[0] and "steps" not in said.lines[0]


def test_without_a_preset_the_models_own_settings_stay(tmp_path: Path) -> None:
    said = Listening()
    found = asked(tmp_path, *STRICT, said=said, prune=None)
    assert (found.judged_by, found.tolerance, found.prune.share) == ("interval", None, 0)
    assert said.lines == []


@pytest.mark.parametrize("project", ["", "[optimize.prune]\nsteps = 2\n"])
def test_what_the_default_preset_says_is_not_that_of_pruning(tmp_path: Path, project: str) -> None:
    """Nearly all presets extend it, and the model may have been trained with another one."""
    folder = tmp_path / "presets" / "heart"
    folder.mkdir(parents=True)
    text = '[optimize]\njudged_by = "estimate"\nformats = ["float16"]\n'
    (folder / "default.toml").write_text(text, encoding="utf-8")
    if project:
        (tmp_path / "medtool.toml").write_text(project, encoding="utf-8")
    with contextlib.chdir(tmp_path):
        found = asked(tmp_path, *STRICT)
        assert (found.judged_by, found.formats) == ("interval", ["int8"])
        # medtool.toml stands above all presets.
        assert (found.prune.share, found.prune.steps) == (0.35, 2 if project else 4)
        # Unless it is the one that is named.
        assert asked(tmp_path, *STRICT, prune="default").formats == ["float16"]
