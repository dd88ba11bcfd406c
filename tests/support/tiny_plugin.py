"""The tiny task as a stranger's installed distribution: found through a real entry point."""

from __future__ import annotations

from pathlib import Path

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
ENTRY_POINTS = "[medtool.tasks]\n{task} = {target}\n"


def install_plugin(
    folder: Path,
    *,
    name: str = "tiny-plugin",
    task: str = "tiny",
    target: str = "tiny_task:TinyTask",
) -> Path:
    """Write the metadata of a distribution into ``folder``, to be put on the path."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA.format(name=name))
    (info / "entry_points.txt").write_text(ENTRY_POINTS.format(task=task, target=target))
    return folder
