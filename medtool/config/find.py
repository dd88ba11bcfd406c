"""Where presets are: the working folder, the plugin's package, those shipped with medtool.

Each place has ``<task>/<name>.toml`` below a folder ``presets``; the first place that has a name
wins. A path to a file works everywhere in place of a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from medtool.core.errors import UnknownNameError
from medtool.core.names import nearest_name

DEFAULT_PRESET = "default"

Place = Literal["working folder", "plugin", "shipped"]


@dataclass(frozen=True)
class PresetFile:
    """One preset that can be asked for; ``label`` names its file without the machine's folders."""

    task: str
    name: str
    file: Path
    place: Place

    @property
    def label(self) -> str:
        """``presets/<task>/<name>.toml``, wherever that folder lies."""
        return f"presets/{self.task}/{self.name}.toml"

    @property
    def remark(self) -> str:
        """Where it lies, when that is not the working folder."""
        return "" if self.place == "working folder" else self.place


def shipped_folder() -> Path:
    """The presets of the distribution: inside the package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "presets"
    if inside.is_dir() or not (package.parent / "pyproject.toml").is_file():
        return inside
    return package.parent / "presets"


def _plugin_folder(module: str) -> Path | None:
    """``presets`` inside the package that ``module`` belongs to; nothing is imported."""
    spec = find_spec(module.partition(".")[0])
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "presets"


def presets_of(task: str, module: str, folder: Path) -> list[PresetFile]:
    """The presets of a task whose class stands in ``module``, by place, then by name.

    One that an earlier place hides is left out.
    """
    found: dict[str, PresetFile] = {}
    for place, root in _places(module, folder):
        for file in sorted((root / task).glob("*.toml")):
            found.setdefault(file.stem, PresetFile(task, file.stem, file, place))
    return list(found.values())


def shipped_presets(task: str, module: str) -> list[PresetFile]:
    """The presets that come with the task, whatever a working folder has."""
    return [
        PresetFile(task, file.stem, file, place)
        for place, root in _shipped_places(module)
        for file in sorted((root / task).glob("*.toml"))
    ]


def _places(module: str, folder: Path) -> Iterator[tuple[Place, Path]]:
    yield "working folder", folder / "presets"
    yield from _shipped_places(module)


def _shipped_places(module: str) -> Iterator[tuple[Place, Path]]:
    plugin = _plugin_folder(module)
    if plugin is not None:
        yield "plugin", plugin
    yield "shipped", shipped_folder()


def find_preset(task: str, module: str, name: str, folder: Path) -> PresetFile:
    """The preset called ``name``; raises UnknownNameError with the nearest name."""
    known = {preset.name: preset for preset in presets_of(task, module, folder)}
    if name in known:
        return known[name]
    raise UnknownNameError(
        f"There is no preset '{name}' of the task '{task}'.",
        met=name,
        wanted="one of: " + ", ".join(sorted(known)) if known else "a path; no preset has a name",
        nearest=nearest_name(name, known),
        how=f"'medtool presets {task}' lists them; a path of a file works too.",
    )


def is_path(name: str) -> bool:
    """Whether a preset was named by its path."""
    return name.lower().endswith(".toml") or "/" in name or "\\" in name
