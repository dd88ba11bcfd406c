"""Presets: schema, layers with origins, faults with the nearest name."""

from medtool.config.find import PresetFile, find_preset, presets_of
from medtool.config.layers import (
    Resolved,
    changed_task,
    resolve,
    settings_from_document,
    task_from_document,
)
from medtool.config.project import Paths, project_paths
from medtool.config.write import preset_text, write_preset

__all__ = [
    "Paths",
    "PresetFile",
    "Resolved",
    "changed_task",
    "find_preset",
    "preset_text",
    "presets_of",
    "project_paths",
    "resolve",
    "settings_from_document",
    "task_from_document",
    "write_preset",
]
