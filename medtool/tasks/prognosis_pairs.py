"""PET and CT that come as files, paired by rules about their names.

The last word of a name says what a file shows: ``NAME_suv``, ``NAME_pet`` or ``NAME_pt`` and
``NAME_ct`` are a pair, ``NAME_mask`` or ``NAME_seg`` is their mask; so are files of these words
alone in one folder, as in autoPET (``SUV``, ``CTres``, ``SEG``), and files of one name in folders
of these words (``pet/NAME``, ``ct/NAME``, ``masks/NAME``). ``NAME_0000`` is the CT and
``NAME_0001`` the PET, as in autoPET III; ``imagesTr`` and ``labelsTr`` are images and masks, as in
HECKTOR and nnU-Net.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medtool.core.names import safe_file_stem
from medtool.data.layout_files import image_ending, image_stem
from medtool.data.volumes import VOLUME_ENDINGS
from medtool.tasks.prognosis_labels import CHANNELS, CT, PET
from medtool.tasks.segmentation_labels import MASK

# What a word says of a file; of several files of a case the word that stands first here is taken.
WORDS: Mapping[str, str] = {
    **dict.fromkeys(("suvbw", "suv", "pt", "pet", "0001"), PET),
    **dict.fromkeys(("ctres", "ct", "0000"), CT),
    **dict.fromkeys(("mask", "seg", "segmentation", "label", "gt"), MASK),
}
# Folders that hold what their names say; those of images hold both.
IMAGES = ""
FOLDERS: Mapping[str, str] = {
    **{word: kind for word, kind in WORDS.items() if not word.isdigit()},
    **dict.fromkeys(("pets", "suvs"), PET),
    "cts": CT,
    **dict.fromkeys(("masks", "labels", "labelstr", "labelsts", "segmentations"), MASK),
    **dict.fromkeys(("images", "imagestr", "imagests"), IMAGES),
}
_LAST_WORD = re.compile(
    rf"^(?:(?P<name>.*?)[ _.\-]+)?(?:(?P<on>{'|'.join(w for w, k in WORDS.items() if k != MASK)})"
    rf"[_\-])?(?P<word>{'|'.join(WORDS)})s?$",
    re.IGNORECASE,
)
RULE = (
    "Files are paired by the last word of their names: suv, pet, pt or 0001 is the PET in SUV, ct, "
    "ctres or 0000 the CT, mask or seg the mask."
)


@dataclass(frozen=True)
class FilePair:
    """The files of one case: ``images`` by channel, perhaps not all, and those not taken.

    ``base`` is the folder that the case lies in, ``folder`` the first one below the root, "" for a
    case that lies directly there or in a folder of many (``imagesTr``).
    """

    case_id: str
    base: Path
    folder: str
    images: Mapping[str, Path]
    mask: Path | None = None
    others: tuple[Path, ...] = ()


# What a file shows -> files, each with its word and, for a mask, the image that it was drawn on.
_Files = dict[str, list[tuple[str, str, Path]]]


def file_pairs(
    files: Sequence[Path], root: Path, answer_grid: str
) -> tuple[list[FilePair], list[Path]]:
    """Cases among ``files`` below ``root``, and volumes whose names say nothing.

    Of several masks the one without a word for an image is taken, then that on ``answer_grid``.
    A mask without an image is no case: it is among the others.
    """
    groups: dict[tuple[Path, str], _Files] = defaultdict(lambda: defaultdict(list))
    left: list[Path] = []
    for file in files:
        if image_ending(file).lower() not in VOLUME_ENDINGS:
            continue
        kind, base, name, word, on = _read_name(file, root)
        if kind:
            groups[base, name][kind].append((word, on, file))
        else:
            left.append(file)
    pairs = []
    for (base, name), group in sorted(groups.items()):
        if not any(group[channel] for channel in CHANNELS):
            left += [file for _, _, file in group[MASK]]
            continue
        pairs.append(_pair(base, name, group, root, answer_grid))
    return _told_apart(pairs), sorted(left)


def _read_name(file: Path, root: Path) -> tuple[str, Path, str, str, str]:
    """What a file shows ("" for nothing known), where its case lies, its name and its words."""
    base = file.parent
    of_folder = FOLDERS.get(base.name.casefold()) if base != root else None
    if of_folder is not None:
        base = base.parent
    stem = image_stem(file)
    match = _LAST_WORD.match(stem)
    if match is None or of_folder == MASK:
        on = ""
        if match is not None and WORDS[match["word"].casefold()] == MASK:
            stem, on = match["name"] or "", (match["on"] or "").casefold()
        return of_folder or "", base, stem, "", WORDS.get(on, "")
    word, on = match["word"].casefold(), (match["on"] or "").casefold()
    name = match["name"] or ""
    if on and WORDS[word] != MASK:
        # Two words for images, such as PET_CT: the last one counts, the other is part of the name.
        name, on = f"{name}_{match['on']}".strip("_"), ""
    return WORDS[word], base, name, word, WORDS.get(on, "")


def _pair(base: Path, name: str, group: _Files, root: Path, answer_grid: str) -> FilePair:
    order = list(WORDS)
    images: dict[str, Path] = {}
    others: list[Path] = []
    for channel in CHANNELS:
        found = sorted(group[channel], key=lambda one: (_place(order, one[0]), one[2]))
        if found:
            images[channel] = found[0][2]
            others += [file for _, _, file in found[1:]]
    wanted = ["", answer_grid]
    masks = sorted(group[MASK], key=lambda one: (_place(wanted, one[1]), one[2]))
    others += [file for _, _, file in masks[1:]]
    folders = base.relative_to(root).parts if base.is_relative_to(root) else ()
    case_id = name or "_".join(folders) or root.resolve().name
    of_many = any(FOLDERS.get(f.parent.name.casefold()) == IMAGES for f in images.values())
    folder = folders[0] if folders and not of_many else ""
    mask = masks[0][2] if masks else None
    return FilePair(case_id, base, folder, images, mask, tuple(others))


def _place(order: Sequence[str], word: str) -> int:
    return order.index(word) if word in order else len(order)


def _told_apart(pairs: Sequence[FilePair]) -> list[FilePair]:
    """Cases with ids of their own that can be names of files."""
    names = Counter(safe_file_stem(pair.case_id).casefold() for pair in pairs)
    named = []
    for pair in pairs:
        name = safe_file_stem(pair.case_id)
        if names[name.casefold()] > 1:
            where = next(iter(pair.images.values())).parent
            name = safe_file_stem("_".join([*where.parts[-2:], pair.case_id]))
        named.append(replace(pair, case_id=name))
    return named
