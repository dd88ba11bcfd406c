"""Names: the nearest known one for a misspelt one, safe ones for files, words behind numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from hashlib import blake2b

# Below this similarity an offer confuses more than it helps (checked on the names of our presets).
MINIMAL_SIMILARITY = 0.6

# Shorter beginnings are shared by chance: the key "p" is not what "precision" meant.
SHORTEST_PREFIX = 3

# Windows refuses these base names whatever their ending.
RESERVED_FILE_NAMES = frozenset(
    [
        "con",
        "prn",
        "aux",
        "nul",
        *(f"com{n}" for n in range(1, 10)),
        *(f"lpt{n}" for n in range(1, 10)),
    ]
)
LONGEST_FILE_STEM = 100
STEM_MARK_BYTES = 4


def nearest_name(name: str, known: Iterable[str], synonyms: Mapping[str, str] | None = None) -> str:
    """The known name that was most likely meant, or "" when none is near.

    Prefixes first (``patch_size`` means ``patch_size_vox``, not ``batch_size``), then synonyms
    (``lr`` means ``rates``), then similarity of spelling.
    """
    candidates = sorted(set(known))
    wanted = name.strip().lower().replace("-", "_")
    if not wanted:
        return ""
    by_form = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    if wanted in by_form:
        return by_form[wanted]
    for form, candidate in by_form.items():
        if min(len(wanted), len(form)) < SHORTEST_PREFIX:
            continue
        if form.startswith(wanted) or wanted.startswith(form):
            return candidate
    synonym = (synonyms or {}).get(wanted)
    if synonym in candidates:
        return str(synonym)
    best = max(by_form, key=lambda form: SequenceMatcher(None, wanted, form).ratio(), default="")
    if best and SequenceMatcher(None, wanted, best).ratio() >= MINIMAL_SIMILARITY:
        return by_form[best]
    return ""


def counted(number: int, one: str, several: str = "") -> str:
    """``1 case`` or ``2 cases``; ``several`` where an s does not do it (studies)."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def case_file_stem(case_id: str) -> str:
    """The stem of the files of a case; other cases never have the same.

    An id that no file name may hold as it is gets a mark of itself behind what remains of it.
    """
    stem = safe_file_stem(case_id)
    if stem == case_id:
        return stem
    return f"{stem}_{blake2b(case_id.encode(), digest_size=STEM_MARK_BYTES).hexdigest()}"


def safe_file_stem(text: str) -> str:
    """``text`` as a file name's stem that every system accepts; not reversible, never empty."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:LONGEST_FILE_STEM]
    if not stem or stem.lower().split(".")[0] in RESERVED_FILE_NAMES:
        stem = f"id_{stem}"
    return stem
