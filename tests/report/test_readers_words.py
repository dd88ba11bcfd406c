"""What a reader of the report would stumble over: numbering, noise of arithmetic, raw times."""

import csv
import json
import re
from pathlib import Path

from markupsafe import Markup
from run_builder import build_run

from medtool.core.records import Scores
from medtool.data.run_folder import RunFolder, write_rows
from medtool.report.cases import worst_cases_html
from medtool.report.cohort import cohort_html
from medtool.report.figures import learning_figure
from medtool.report.performance import headline_html, metric_title, training_html
from medtool.report.record import checkpoints_html, limits_html
from medtool.report.run_view import RunView, view_run
from medtool.report.templates import fact_title, svg_figure_html, time_text


def cohort_of(tmp_path: Path, facts: list[dict[str, object]]) -> str:
    run = RunFolder(tmp_path)
    run.write_cases(
        [
            {"case": f"S{n}", "patient": f"P{n}", "part": "train", "label": n % 2, **row}
            for n, row in enumerate(facts)
        ]
    )
    return str(cohort_html(view_run(run)))


def test_noise_of_arithmetic_is_no_class_of_its_own(tmp_path) -> None:
    tilts = [14.99999999861281, 15.0, 15.000000001, 0.0]
    text = cohort_of(tmp_path, [{"tilt_degrees": tilt} for tilt in tilts])
    found = re.findall(r"gantry tilt \(degrees\): ([\d.]+)</td><td[^>]*>(.*?)</td>", text)
    assert found == [("15", "3 (75%)"), ("0", "1 (25%)")]


def test_what_readers_ask_for_comes_first_and_the_rest_is_folded(tmp_path) -> None:
    row = {"window_width": 80.0, "kernel": "soft", "transfer_syntax": "1.2.840.10008.1.2.1"}
    text = cohort_of(tmp_path, [{**row, "sex": sex, "model": "One"} for sex in "FMF"])
    shown, folded = text.split("<details>")
    assert shown.index("sex: F") < shown.index("scanner model: One") < shown.index("kernel: soft")
    assert "window width" not in shown and "transfer syntax" not in shown
    assert "window width: 80<" in folded and "transfer syntax: 1.2.840.10008.1.2.1" in folded


def test_a_slice_has_one_number_on_the_picture_and_below_it(tmp_path) -> None:
    run = build_run(tmp_path / "run")
    file = run.predictions_folder / "test" / "slices.csv"
    with file.open(newline="", encoding="utf-8") as stream:
        case = next(csv.DictReader(stream))["case"]
    listed = [row["case"] for row in view_run(run).scores["test"].per_case]
    rows = [
        {
            "case": case,
            "slice_index": 6,
            "instance_number": 7,
            "position_mm": -22.5,
            "logit": 4.9,
        }
        for case in {case, *listed}
    ]
    write_rows(file, rows)
    text = str(worst_cases_html(view_run(run)))
    assert "counted from 0: slice 6 (instance 7) at -22.5 mm, logit 4.90." in text


def test_of_masks_the_best_and_the_median_case_stand_beside_the_worst(tmp_path) -> None:
    errors = {"a": 0.5, "b": 0.1, "c": 0.9, "d": 0.3, "e": 0.2}
    rows = tuple(
        {"case": case, "patient": case, "error": error, "said": [f"Dice {1 - error:.1f}"]}
        for case, error in errors.items()
    )
    tables = {"structures": [{"structure": "organ"}]}
    view = RunView(
        path=tmp_path,
        run={},
        preset={"report": {"worst_cases": 2}},
        cases=(),
        history=(),
        checkpoints=({"file": "best.safetensors", "threshold": 0.5},),
        scores={"test": Scores(metrics={}, per_case=rows, tables=tables)},
        intake={},
    )
    text = str(worst_cases_html(view))
    shown = re.findall(r"<h3>(.*?)</h3>", text)
    assert shown == ["c", "a", "b (best)", "d (median)"]
    assert "green is the reference" in text
    # What holds for probabilities is not said of masks.
    assert "PPV" not in str(limits_html(view))
    assert "Threshold" not in str(checkpoints_html(view))
    assert metric_title("dice.whole organ") == "Dice, whole organ"


def test_times_are_written_for_people() -> None:
    assert time_text("2024-03-09T14:05:59+00:00") == "9 March 2024, 14:05 UTC"
    assert time_text("2024-03-09T14:05:59") == "9 March 2024, 14:05"
    assert time_text("2024-03-09T14:05:59+05:30") == "9 March 2024, 14:05 +0530"
    assert time_text("unknown") == "unknown"


def test_facts_are_called_by_the_fields_words() -> None:
    names = ["kvp", "tilt_degrees", "slice_spacing_mm", "manufacturer"]
    titles = [fact_title(name) for name in names]
    assert titles == ["kVp", "gantry tilt (degrees)", "slice spacing (mm)", "manufacturer"]


def test_groups_that_learn_alike_share_one_line() -> None:
    history = [
        {"epoch": n, "stage": 0, "loss": 1.0, "rate_a": r, "rate_b": r, "rate_c": r / 10}
        for n, r in enumerate((1e-3, 1e-4))
    ]
    rates = learning_figure(history).axes[2]
    assert [line.get_label() for line in rates.get_lines()] == ["a, b", "c"]


def test_wide_things_scroll_inside_the_page() -> None:
    drawing = str(svg_figure_html(Markup("<svg></svg>"), "Flow."))
    assert drawing.strip().startswith('<figure role="img" aria-label="Flow." class="drawn">')


def test_a_metric_without_interval_says_so(tmp_path) -> None:
    run = build_run(tmp_path / "run")
    stored = run.read_scores()
    stored["test"]["metrics"]["auroc"] |= {"low": None, "high": None}
    run.scores_file.write_text(json.dumps(stored), encoding="utf-8")
    text = str(headline_html(view_run(run)))
    assert text.count(">no interval<") == 1
    assert "(\N{EN DASH})" not in text


def test_joined_folds_say_where_curves_and_checkpoints_are(tmp_path) -> None:
    run = RunFolder(tmp_path)
    run.write_run({"folds": ["fold_0", "fold_1"]})
    view = view_run(run)
    assert "in the reports of fold_0, fold_1." in training_html(view)
    assert "in the reports of fold_0, fold_1." in checkpoints_html(view)


def test_one_part_is_not_shown_twice(tmp_path) -> None:
    text = cohort_of(tmp_path, [{"sex": "F"}, {"sex": "M"}])
    assert re.findall(r"<button[^>]*>(.*?)</button>", text) == ["", "All"]
