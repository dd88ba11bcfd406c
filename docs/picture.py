"""Makes docs/images/report.png from the report of a demo: ``python docs/picture.py RUN``.

RUN is the folder of a run that 'medtool demo' made. The picture shows parts of its report.html
in a headless Chromium; what is hidden is named in ``STYLE``, nothing is added.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

PICTURE = Path(__file__).parent / "images" / "report.png"
WIDTH_PX = 1200
# Longer than what is shown; the empty rest is cut off.
HEIGHT_PX = 4000
MARGIN_PX = 24
COLOURS = 256

STYLE = """
<style>
nav, footer, .subtitle, main > section, section[id$="performance"] > *,
section[id$="performance"] figure:nth-of-type(n+4), .case ~ .case { display: none !important; }
section[id$="headline"], section[id$="flow_of_studies"],
section[id$="performance"], section[id$="performance"] > h2, section[id$="worst_cases"]
{ display: block !important; }
section[id$="performance"] > .figures { display: grid !important; }
</style>
"""


def main() -> None:
    """Write the picture."""
    run = Path(sys.argv[1])
    page = (run / "report.html").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        shown, shot = Path(folder) / "report.html", Path(folder) / "shot.png"
        shown.write_text(page.replace("</head>", f"{STYLE}</head>"), encoding="utf-8")
        subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--window-size={WIDTH_PX},{HEIGHT_PX}",
                f"--screenshot={shot}",
                shown.as_uri(),
            ],
            check=True,
            capture_output=True,
        )
        image = Image.open(shot).convert("RGB")
    pixels = np.asarray(image)
    used = np.nonzero((pixels != pixels[-1, -1]).any(axis=(1, 2)))[0]
    image = image.crop((0, 0, WIDTH_PX, int(used[-1]) + MARGIN_PX))
    PICTURE.parent.mkdir(exist_ok=True)
    image.quantize(COLOURS).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
