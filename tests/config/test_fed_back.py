"""Property: a resolved preset, written and read back, gives itself."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tiny_task import TinyAugment, TinyData, TinyPreparation, TinySettings, TinyTask

from medtool.config import preset_text, resolve, settings_from_document, write_preset
from medtool.config.sections import MetricsSection, StageSection, TrainSection

positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
relative = st.lists(
    st.one_of(st.just(".."), st.text("abc äß#'\"=\\[]", min_size=1).filter(str.strip)), max_size=4
).map(lambda parts: Path(*parts))


def as_resolved(path: Path) -> Path:
    """``resolve`` gives paths without ``x/..``."""
    return Path(os.path.normpath(path))


settings_strategy = st.builds(
    TinySettings,
    description=st.text(),
    data=st.builds(
        TinyData,
        folder=relative.map(as_resolved),
        labels=st.none() | relative.map(as_resolved),
        id_column=st.none() | st.text(),
        positive_values=st.lists(st.text(), max_size=3),
        preparation=st.builds(TinyPreparation, scale=st.floats(allow_nan=False)),
    ),
    metrics=st.builds(MetricsSection, primary=st.text(), subgroups=st.lists(st.text())),
    augment=st.builds(TinyAugment, noise=st.floats(allow_nan=False, allow_infinity=False)),
    train=st.builds(
        TrainSection,
        learning_rate=positive,
        seed=st.integers(0, 2**63 - 1),
        stages=st.lists(
            st.builds(
                StageSection,
                from_epoch=st.integers(0, 1000),
                rates=st.dictionaries(st.text(), positive, max_size=3),
            ),
            max_size=3,
        ),
    ),
)


@given(settings_strategy, st.sampled_from(["preset.toml", "runs/tiny/a/preset.toml"]))
def test_what_is_written_and_read_back_is_the_same(settings, name):
    with tempfile.TemporaryDirectory() as root:
        # Deep enough that no path of the strategy climbs above the disk's root; with names that
        # are not drawn: from a/b/c/d, ../../c is .. in other words.
        folder = Path(root, "1", "2", "3", "4")
        folder.mkdir(parents=True)
        with contextlib.chdir(folder):
            file = Path(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_preset(settings, file, origins={"data.folder": "p.toml:3"}, title="a title")
            again = resolve(TinyTask, f"./{file}")
    assert again.settings == settings
    assert preset_text(again.settings) == preset_text(settings)


@given(settings_strategy)
def test_as_plain_values_and_back(settings):
    assert settings_from_document(TinyTask, settings.as_dict()) == settings
