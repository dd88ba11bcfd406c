"""A model of a task whose cases misbehave, trained once for each module of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faulty_place import TRAIN, Place, write_slow_scans
from tiny_plugin import install_plugin


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Made once a module: the task is registered for its tests alone, since others count tasks."""
    from medtool.cli.app import main

    folder = tmp_path_factory.mktemp("faults")
    site = install_plugin(
        folder / "site", name="faulty-plugin", task="faulty", target="faulty_task:FaultyTask"
    )
    names = [f"{number}_slow" for number in range(8)]
    write_slow_scans(folder / "scans", *names)
    rows = [f"{name},{number % 2}" for number, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["case,label", *rows]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.chdir(folder)
        assert main([*TRAIN, "--run", "one", "--set", "train.epochs=2"]) == 0
        yield Place(folder, site)
