"""The page of a run: complete, escaped, and nothing in it leads outside."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from run_builder import HOSTILE_ID, build_run

from medtool.core.records import Section
from medtool.data.run_folder import RunFolder
from medtool.report.page import page_html, write_report
from medtool.report.templates import figure_html, paragraph_html, picture_html, table_html

TITLES = [
    "Headline",
    "Flow of studies",
    "Cohort",
    "Methods",
    "Learning curves",
    "Performance",
    "Worst cases",
    "Suspected label errors",
    "Subgroups",
    "Confounders",
    "Checkpoints",
    "What it is not for",
    "Versions and settings",
]
# Namespaces of SVG are names, not addresses.
NAMESPACES = ("http://www.w3.org/", "http://purl.org/", "http://creativecommons.org/")


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    run = build_run(tmp_path_factory.mktemp("report") / "run")
    own = Section("Of the task itself", str(paragraph_html("<b>kept as text</b>")), 100)
    return write_report(run, [own], title="brainmet & co: a run")


def test_every_section_is_there_in_order_and_the_tasks_own_among_them(report):
    text = report.read_text(encoding="utf-8")
    found = re.findall(r"<h2>(.*?)</h2>", text)
    assert found == [*TITLES[:10], "Of the task itself", *TITLES[10:]]


def test_ids_and_titles_cannot_become_markup(report):
    text = report.read_text(encoding="utf-8")
    assert HOSTILE_ID not in text
    assert "&lt;script&gt;alert" in text
    assert "<title>brainmet &amp; co: a run</title>" in text
    assert "&lt;b&gt;kept as text&lt;/b&gt;" in text
    assert text.count("<script>") == 1


def test_nothing_in_the_file_points_outside(report):
    text = report.read_text(encoding="utf-8")
    addresses = re.findall(r"""(?:src|href)=["']([^"']*)["']""", text)
    assert all(a.startswith(("data:", "#")) for a in addresses), addresses
    plain = text.replace("http://example.invalid", "")  # the hostile id, as text
    links = [u for u in re.findall(r"https?://[^\s\"'<>&]*", plain) if not u.startswith(NAMESPACES)]
    assert links == []
    assert "@import" not in text
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", text)


def test_ids_of_elements_are_unique(report):
    ids = re.findall(r'\sid="([^"]+)"', report.read_text(encoding="utf-8"))
    # matplotlib names the groups of each figure alike; what is referred to must be unique.
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', report.read_text(encoding="utf-8")))
    assert [name for name in referred if ids.count(name) != 1] == []


def test_a_selection_part_is_labelled_wherever_it_stands(tmp_path):
    run = build_run(tmp_path / "run", parts=False)
    text = write_report(run).read_text(encoding="utf-8")
    sections = dict(re.findall(r"<h2>(.*?)</h2>(.*?)</section>", text, flags=re.S))
    for title in ("Headline", "Performance", "Subgroups", "What it is not for"):
        assert "optimistic" in sections[title].lower(), title
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", sections["Performance"])
    assert captions
    assert all("optimistic" in caption for caption in captions)
    assert "cannot question labels" in sections["Suspected label errors"]


def test_the_flow_accounts_for_every_study(tmp_path):
    """From a fault: studies that could not be prepared keep their part, and counted as used."""
    run = build_run(tmp_path / "run")
    text = write_report(run).read_text(encoding="utf-8")
    sections = dict(re.findall(r"<h2>(.*?)</h2>(.*?)</section>", text, flags=re.S))
    flow = sections["Flow of studies"]
    failed = {failure["case"] for failure in run.read_run()["failures"]}
    cases = [case for case in run.read_cases() if case["case"] not in failed]
    used = {part: sum(c["part"] == part for c in cases) for part in ("train", "selection", "test")}
    # 162 studies with a usable scan and 4 without; two of the 162 failed while being prepared.
    for line in (
        "Received: 166 studies",
        "Studies refused at intake: 4",
        "missing-slices: 2",
        "Usable scans: 162 studies",
        "Not used: 2",
        "no-brain: 1",
        "Used: 160 studies",
        f"Training: {used['train']} studies",
        f"Selection: {used['selection']} studies",
        f"Test: {used['test']} studies",
    ):
        assert line in flow, line
    assert f"on {used['train']} studies of" in sections["Methods"]


def test_a_run_that_has_only_begun_gets_a_page(tmp_path):
    run = RunFolder(tmp_path / "begun")
    run.path.mkdir()
    text = write_report(run).read_text(encoding="utf-8")
    assert "No predictions were scored" in text


def test_a_figure_is_the_same_every_time():
    def drawn() -> str:
        figure = Figure()
        figure.add_subplot().plot([0, 1], [1, 0])
        return str(figure_html(figure, "a line"))

    assert drawn() == drawn()


def test_table_cells_keep_the_whole_number_for_sorting():
    html = table_html([{"a": 0.123456, "b": "<i>"}, {"a": float("nan"), "b": None}], ["a", "b"])
    assert 'data-value="0.123456"' in html
    assert ">0.123<" in html.replace("\n", "")
    assert "&lt;i&gt;" in html
    assert 'data-value=""' in html


def test_only_pictures_are_embedded(tmp_path):
    file = tmp_path / "picture.png"
    file.write_bytes(b"<svg onload=alert(1)>")
    assert picture_html(file, "x") == ""
    assert picture_html(tmp_path / "missing.png", "x") == ""
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + np.zeros(8, np.uint8).tobytes())
    assert picture_html(file, '"><b>').startswith('<img src="data:image/png;base64,')
    assert "&#34;&gt;&lt;b&gt;" in picture_html(file, '"><b>')


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync --no-pings"
).split()


def _open(file: Path, folder: Path, *extra: str) -> tuple[str, str, list[str]]:
    """The DOM after the scripts ran, what the console said, and what the page asked for."""
    log = folder / "net.json"
    done = subprocess.run(
        [
            str(CHROMIUM),
            *QUIET_FLAGS,
            f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr",
            f"--log-net-log={log}",
            *extra,
            # The browser's own errands (updates, time) find no way out.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--virtual-time-budget=3000",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console, _requests(log)


def _requests(log: Path) -> list[str]:
    document = json.loads(log.read_text(encoding="utf-8"))
    begin = document["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    started = [e.get("params", {}) for e in document["events"] if e["type"] == begin]
    # The browser's own errands belong to no page; those of a page carry its origin.
    mine = [p for p in started if str(p.get("network_isolation_key", "")).startswith("file:")]
    return [p["url"] for p in mine if not p["url"].startswith(("file:", "data:"))]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
class TestInABrowser:
    def test_the_page_opens_without_an_error_or_a_request(self, report, tmp_path):
        dom, console, requests = _open(report, tmp_path)
        assert "Worst cases" in dom
        assert console == ""
        assert requests == []

    def test_the_watch_itself_sees_errors_and_requests(self, tmp_path):
        # The same way of looking, on a page that does what ours must not do.
        bad = tmp_path / "bad.html"
        bad.write_text(
            "<img src='http://127.0.0.1:9/x.png'><script>console.error('seen')</script>",
            encoding="utf-8",
        )
        _, console, requests = _open(bad, tmp_path)
        assert "seen" in console
        assert requests == ["http://127.0.0.1:9/x.png"]

    def test_a_script_that_slipped_in_would_not_run(self, tmp_path):
        section = Section("Slipped", "<p id='p'>no</p><script>p.textContent='ran'</script>")
        page = tmp_path / "page.html"
        page.write_text(page_html("x", [section]), encoding="utf-8")
        dom, console, _ = _open(page, tmp_path)
        assert '<p id="p">no</p>' in dom
        assert "Content Security Policy" in console

    def test_tables_sort_by_the_pressed_column(self, tmp_path):
        rows = [{"a": 2.0, "b": "x"}, {"a": 10.0, "b": "y"}, {"a": float("nan"), "b": "z"}]
        html = page_html("x", [Section("Table", str(table_html(rows, ["a", "b"])))])
        press = "document.querySelector('thead button').click();"
        # The page's own script, with one press at its end: the policy's hash must fit it.
        from medtool.report import page as module

        script = (module.ASSETS / "script.js").read_text(encoding="utf-8")
        policy = re.search(r"script-src '[^']+'", html)
        html = html.replace(policy.group(), "script-src 'unsafe-inline'").replace(
            script.rstrip(), script.rstrip() + press
        )
        page = tmp_path / "page.html"
        page.write_text(html, encoding="utf-8")
        dom, console, _ = _open(page, tmp_path)
        assert console == ""
        assert re.findall(r'<td class="short"[^>]*>(\w)', dom) == ["y", "x", "z"]
        assert 'aria-sort="descending"' in dom


def test_the_value_that_chose_the_checkpoint_is_labelled_wherever_it_stands(report):
    text = report.read_text(encoding="utf-8")
    assert "on the selection part (0.881: selection set, optimistic)" in text
    assert "Loss, metrics on the selection part (selection set, optimistic)" in text
