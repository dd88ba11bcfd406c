"""Whether values can be Hounsfield units, judged by their spread.

Air is -1000 HU, water 0, fat about -100, soft tissue 0 to 100, bone up to 2000, metal above. An
axial CT shows air or at least fat, and something denser than fat. Values that miss one of these
are stored values without rescale, a normalised image, or a screen copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medtool.core.records import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

# About this many voxels are looked at: some 300 lie beyond each of the percentiles below.
SAMPLE_VOXELS = 2**16
# Between them the low and the high end of a scan are judged, single voxels are not.
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
# Something at least as dark as fat is in every scan,
DARKEST_HU = -50.0
# something denser than fat,
BRIGHTEST_HU = -200.0
# both ends differ by more than soft tissues do among themselves,
LEAST_SPREAD_HU = 100.0
# and not even an extended scale goes beyond this (methods of metal imaging reach 30,000 in single
# voxels, not in one of 200).
LIMIT_HU = 20_000.0
# Without anything this dark a scan shows no air around the body: worth a look.
AIR_AT_MOST_HU = -300.0


def hu_findings(array: NDArray[np.float32]) -> tuple[Finding, ...]:
    """``not-hu`` (refusal) or ``no-air`` (warning) for a CT volume (z, y, x); else nothing."""
    # A step that shares no factor with usual widths, so that columns are not sampled unevenly.
    step = max(1, array.size // SAMPLE_VOXELS) | 1
    sample = array.reshape(-1)[::step]
    low, high = (float(v) for v in np.percentile(sample, (LOW_PERCENTILE, HIGH_PERCENTILE)))
    met = f"{LOW_PERCENTILE} % of voxels below {low:.6g}, {HIGH_PERCENTILE} % below {high:.6g}"
    why = ""
    if not (np.isfinite(low) and np.isfinite(high)):
        why = "values that are no numbers"
    elif high - low < LEAST_SPREAD_HU:
        why = "hardly any contrast"
    elif low > DARKEST_HU:
        why = "nothing as dark as fat or air"
    elif high < BRIGHTEST_HU:
        why = "nothing denser than fat"
    elif high > LIMIT_HU:
        why = "values beyond every scale"
    if why:
        return (Finding("not-hu", f"{why}: {met}", "refusal"),)
    if low > AIR_AT_MOST_HU:
        return (Finding("no-air", f"no air in the image: {met}", "warning"),)
    return ()
