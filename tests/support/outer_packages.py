"""The packages that medtool needs, taken from the environment of the tests: nothing is downloaded.

Either as wheels (what was unpacked into the environment is packed again), so that pip can install
them as from a download, or as a folder of links that another environment sees as its own.
"""

from __future__ import annotations

import re
import sysconfig
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path, PurePath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Written by installers beside what the wheel held.
NOT_OF_THE_WHEEL = {"INSTALLER", "REQUESTED", "direct_url.json", "RECORD"}


def outer_distributions() -> Iterator[Distribution]:
    """Every installed distribution but medtool itself, and pip, which every environment brings."""
    # Not all of sys.path: setuptools, once imported, puts packages of its own there.
    places = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    for found in distributions(path=places):
        if canonicalize_name(found.name) not in ("medtool", "pip"):
            yield found


def needed_by(requirement: str) -> list[Distribution]:
    """The installed distributions that ``requirement`` comes to, with all that they require."""
    found: dict[str, Distribution] = {}
    asked = [Requirement(requirement)]
    while asked:
        one = asked.pop()
        name = canonicalize_name(one.name)
        if name in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        found[name] = distribution(name)
        asked += [Requirement(text) for text in found[name].requires or ()]
    return list(found.values())


def link_packages(folder: Path) -> Path:
    """``folder`` with a link to every outer package and its metadata; medtool is not among them."""
    folder.mkdir(parents=True)
    for found in outer_distributions():
        for name in sorted({file.parts[0] for file in found.files or ()}):
            target = Path(str(found.locate_file(name)))
            if name in ("..", "__pycache__") or name.endswith(".pth") or not target.exists():
                continue
            # Several distributions may share a folder, as those of one namespace do.
            if not (folder / name).exists():
                (folder / name).symlink_to(target)
    return folder


def pack(found: Distribution, folder: Path) -> Path:
    """The wheel that ``found`` was installed from, but for scripts that are no entry points."""
    information = next(file.parts[0] for file in found.files or () if file.name == "WHEEL")
    tags: dict[str, list[str]] = {"python": [], "abi": [], "platform": []}
    for tag in re.findall(r"^Tag: (\S+)$", found.read_text("WHEEL") or "", re.MULTILINE):
        for kind, part in zip(tags, tag.split("-"), strict=True):
            if part not in tags[kind]:
                tags[kind].append(part)
    stem = information.removesuffix(".dist-info")
    path = folder / f"{stem}-{'-'.join('.'.join(parts) for parts in tags.values())}.whl"
    folder.mkdir(parents=True, exist_ok=True)
    record = []
    # Not compressed: the wheels live for a minute.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in found.files or ():
            if _is_of_the_wheel(file, information):
                archive.write(str(found.locate_file(file)), file.as_posix())
                record.append(f"{file.as_posix()},,")
        record.append(f"{information}/RECORD,,")
        archive.writestr(f"{information}/RECORD", "\n".join(record) + "\n")
    return path


def _is_of_the_wheel(file: PurePath, information: str) -> bool:
    if file.parts[0] == ".." or file.suffix == ".pyc":
        return False
    return file.parts[0] != information or file.name not in NOT_OF_THE_WHEEL
