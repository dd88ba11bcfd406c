"""Nothing of the flow of studies is cut, and nothing runs out of its box."""

import re

from medtool.report.flow import LETTER_WIDTH, FlowStep, flow_svg

LONG = "12 intraductal papillary mucinous neoplasms with an associated invasive carcinoma"


def test_long_names_of_classes_are_broken_and_kept_whole() -> None:
    part = FlowStep("Test: 20 studies", (LONG, "8 others"))
    svg = str(flow_svg([FlowStep("Received: 20 studies")], [part, part, part]))
    boxes = [int(width) for width in re.findall(r'<rect x="\d+" y="\d+" width="(\d+)"', svg)]
    heights = [int(height) for height in re.findall(r'<rect [^>]*height="(\d+)"', svg)]
    texts = re.findall(r'<text x="(\d+)" y="(\d+)"[^>]*>([^<]*)</text>', svg)
    shown = " ".join(text.strip("\N{NO-BREAK SPACE}") for _, _, text in texts)
    assert shown.count(LONG) == 3
    assert max(len(text) for _, _, text in texts) * LETTER_WIDTH <= min(boxes) - 24
    assert max(heights) > min(heights) and svg.count("8 others") == 3
    whole = int(re.search(r'height="(\d+)" viewBox', svg).group(1))  # type: ignore[union-attr]
    assert max(int(y) for _, y, _ in texts) < whole


def test_a_reason_with_letters_of_html_stays_text() -> None:
    svg = str(flow_svg([FlowStep("A <b> & c")], []))
    assert "A &lt;b&gt; &amp; c" in svg
