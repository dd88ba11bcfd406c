"""The stages that a report states are those that were trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_builder import PRESET, build_run

from medtool.report.methods import methods_html
from medtool.report.run_view import view_run


@pytest.mark.parametrize(
    ("preset", "plan", "begins"),
    [
        (PRESET, {}, [0, 5, 12]),
        # --minutes squeezed them.
        (
            PRESET,
            {"plan": {"stages": [{"from_epoch": n, "rates": {"a": 1}} for n in (0, 1)]}},
            [0, 1],
        ),
        (
            PRESET.replace("[model]", "[model]\nfrom_scratch = true"),
            {"plan": {"stages": [{"from_epoch": 0, "rates": {"head": 0.1}}]}},
            [],
        ),
    ],
)
def test_stages_are_those_of_the_plan(
    preset: str, plan: dict[str, object], begins: list[int], tmp_path: Path
) -> None:
    """From a fault: the stages of the preset were stated, whatever had been trained."""
    run = build_run(tmp_path / "run", cases=40)
    run.preset_file.write_text(preset)
    run.write_run({**run.read_run(), **plan})
    html = str(methods_html(view_run(run)))
    assert html.count("From epoch") == len(begins)
    assert all(f"From epoch {epoch} " in html for epoch in begins)
