"""``model-card.json``: what a user of the exported file has to know, for people and programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool import RESEARCH_NOTICE, __version__
from medtool.core.checkpoint import plain_json
from medtool.core.deployed import MODEL_CARD
from medtool.core.files import replace_text

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.optimize.export import ExportedFile

CARD_FORMAT = 1
# Of the document of a checkpoint what its card repeats.
REPEATED = ("threshold", "threshold_rule", "postprocessing", "synthetic", "versions")
NO_LICENCE = "that of the data it learned from; ask whoever trained it"


def write_card(
    task: Task, document: Mapping[str, Any], exported: ExportedFile, folder: Path
) -> dict[str, Any]:
    """Write the card of ``exported`` into ``folder``; gives what it says."""
    card = model_card(task, document, exported)
    # Through strict JSON: what is not finite becomes null.
    plain: dict[str, Any] = json.loads(plain_json(card))
    replace_text(folder / MODEL_CARD, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")
    return plain


def model_card(task: Task, document: Mapping[str, Any], exported: ExportedFile) -> dict[str, Any]:
    """What the task says of its inputs, and what the file and the checkpoint say of themselves."""
    said, weights = dict(task.model_card()), document.get("weights") or {}
    spec = task.exported_deployment()
    return {
        "format": CARD_FORMAT,
        "name": f"medtool {task.name}",
        "task": task.name,
        "summary": task.summary,
        "notice": RESEARCH_NOTICE,
        "licence": weights.get("licence") or NO_LICENCE,
        "made_by": f"medtool {__version__}",
        "file": exported.file.name,
        "opset": exported.opset,
        "inside": list(spec.inside),
        **said,
        "inputs": {
            name: {"shape": list(shape), "type": "float32", **said["inputs"].get(name, {})}
            for name, shape in exported.inputs.items()
        },
        "outputs": {
            name: {"type": "float32", **said["outputs"].get(name, {})} for name in exported.outputs
        },
        **{name: document[name] for name in REPEATED if document.get(name) is not None},
        "members": [str(member["name"]) for member in document.get("members", ())],
    }
