"""Which presets there are; one of them resolved, with the origin of each value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medtool.config import Resolved, preset_text, presets_of, resolve
from medtool.config.layers import preset_description
from medtool.core.errors import MedtoolError, UnknownNameError
from medtool.core.names import nearest_name
from medtool.core.registry import load_task, task_entries


@dataclass(frozen=True)
class PresetLine:
    """One preset that can be asked for by name."""

    task: str
    name: str
    place: str
    file: str
    description: str
    problem: str = ""

    def as_dict(self) -> dict[str, str]:
        """Plain text, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ShownPreset:
    """A resolved preset with the origin of each value."""

    task: str
    resolved: Resolved

    def as_toml(self) -> str:
        """The whole preset, each value with its origin as a comment."""
        name = self.resolved.preset_name or "none, defaults only"
        title = f"task {self.task}, preset {name}; later layers win: " + ", ".join(
            ["schema default", *(file.as_posix() for file in self.resolved.files)]
        )
        return preset_text(self.resolved.settings, origins=self.resolved.origins, title=title)

    def as_dict(self) -> dict[str, Any]:
        """Values and origins, for JSON."""
        return {
            "task": self.task,
            "preset": self.resolved.preset_name,
            "files": [str(file) for file in self.resolved.files],
            "settings": self.resolved.settings.as_dict(),
            "origins": dict(self.resolved.origins),
            "cache": str(self.resolved.paths.cache),
            "runs": str(self.resolved.paths.runs),
        }


def list_presets(task: str | None = None, *, folder: Path = Path()) -> list[PresetLine]:
    """The presets of one task or of all; no plugin is imported.

    Raises UnknownNameError when there is no such task.
    """
    entries = task_entries()
    names = sorted({entry.name for entry in entries})
    if task is not None and task not in names:
        raise UnknownNameError(
            f"There is no task named '{task}'.",
            met=task,
            wanted="one of: " + ", ".join(names),
            nearest=nearest_name(task, names),
            how="'medtool tasks' lists the tasks with what each answers.",
        )
    lines = []
    for entry in entries:
        if task not in (None, entry.name):
            continue
        for preset in presets_of(entry.name, entry.target.partition(":")[0], folder):
            description, problem = "", ""
            try:
                description = preset_description(preset)
            except MedtoolError as error:
                problem = " ".join(str(error).split())
            file = str(preset.file)
            lines.append(
                PresetLine(entry.name, preset.name, preset.place, file, description, problem)
            )
    return lines


def show_preset(
    task: str, name: str | None, *, assignments: Sequence[str] = (), folder: Path = Path()
) -> ShownPreset:
    """A preset resolved as a run in ``folder`` would; raises what ``resolve`` raises."""
    return ShownPreset(task, resolve(load_task(task), name, folder=folder, assignments=assignments))


def preset_schema(task: str) -> dict[str, Any]:
    """JSON Schema of a task's preset files, for editors."""
    schema = load_task(task).settings_type.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
