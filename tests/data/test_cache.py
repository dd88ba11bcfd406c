"""The cache: what is stored comes back, what is damaged is known, what changed is another key."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from tiny_task import TinyPreparation, TinySettings, TinyTask, write_tiny_cohort

from medtool.core.errors import MachineError
from medtool.core.geometry import Grid
from medtool.core.records import Case, Finding, Prepared, Source
from medtool.data.cache import Cache, input_files, read_prepared
from medtool.data.case_file import DamagedFile, to_bytes, verify
from medtool.data.dataset_record import ImageReference


def _prepared(array: np.ndarray, name: str = "slices") -> Prepared:
    return Prepared(
        case_id="a",
        arrays={name: array},
        grids={name: Grid((2, 3, 4), (0.5, 0.5, 2.0), (-1.0, 2.0, 3.5))},
        elements=({"slice": 0, "used": True, "asymmetry": 0.25},),
        facts={"slice_hashes": ["00"], "mean_hu": np.float32(2.5), "shape": np.array([1, 2])},
        findings=(Finding("tilt", "sheared", "warning"),),
    )


def _write(path: Path, prepared: Prepared) -> Path:
    path.write_bytes(b"".join(to_bytes(prepared)))
    return path


@pytest.fixture
def cohort(tmp_path: Path) -> tuple[Case, ...]:
    write_tiny_cohort(tmp_path / "data", patients=2)
    return TinyTask(TinySettings()).find(Source((tmp_path / "data",))).cases


def test_a_prepared_case_comes_back_whole(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    back = read_prepared(_write(tmp_path / "a.b2", _prepared(array)))
    assert back.case_id == "a"
    np.testing.assert_array_equal(back.arrays["slices"], array)
    assert back.arrays["slices"].dtype == np.int16
    assert back.grids["slices"] == Grid((2, 3, 4), (0.5, 0.5, 2.0), (-1.0, 2.0, 3.5))
    assert back.elements == ({"slice": 0, "used": True, "asymmetry": 0.25},)
    assert back.facts == {"slice_hashes": ["00"], "mean_hu": 2.5, "shape": [1, 2]}
    assert back.findings == (Finding("tilt", "sheared", "warning"),)


@given(
    st_numpy.arrays(
        dtype=st.sampled_from([np.uint8, np.int16, np.float16, np.float32, np.float64, np.bool_]),
        shape=st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7),
    )
)
def test_any_array_comes_back(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    path = tmp_path_factory.getbasetemp() / "any.b2"
    back = read_prepared(_write(path, _prepared(array))).arrays["slices"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_slices_and_patches_are_read_without_the_rest(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(-1000, 1000, (70, 300, 310)).astype(np.int16)
    prepared = replace(
        _prepared(volume), arrays={"ct": volume, "mask": (volume > 0).astype(np.uint8)}, grids={}
    )
    path = _write(tmp_path / "v.b2", prepared)
    assert set(read_prepared(path, names=["mask"]).arrays) == {"mask"}
    np.testing.assert_array_equal(
        read_prepared(path, names=["ct"], index=slice(3, 9)).arrays["ct"], volume[3:9]
    )
    np.testing.assert_array_equal(
        read_prepared(path, index=[69, 0, 5]).arrays["mask"], volume[[69, 0, 5]] > 0
    )
    patch = (slice(10, 20), slice(100, 164), slice(7, 71))
    np.testing.assert_array_equal(
        read_prepared(path, names=["ct"], index=patch).arrays["ct"], volume[patch]
    )


@given(st.data())
def test_a_changed_byte_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.b2"
    _write(path, _prepared(np.arange(60, dtype=np.float32).reshape(3, 4, 5)))
    content = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    content[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(DamagedFile):
        verify(path)


def test_a_file_cut_short_or_with_more_is_noticed(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.b2", _prepared(np.ones((3, 4, 5))))
    content = path.read_bytes()
    for damaged in (b"", content[:10], content[:-1], content + b"x", b"no case file" * 9):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile):
            verify(path)


def test_store_load_and_refusals(tmp_path: Path, cohort: tuple[Case, ...]) -> None:
    task = TinyTask(TinySettings())
    cache = Cache(tmp_path / "cache", task)
    cache.open()
    first, second, _ = cohort
    assert not cache.has(first)
    assert cache.refusal(first) is None
    cache.refuse(first, "wrong-size", "too small")
    assert cache.refusal(first).message == "too small"  # type: ignore[union-attr]
    path = cache.store(first, task.prepare(first))
    assert cache.refusal(first) is None
    assert cache.has(first)
    assert cache.sound(first)
    assert not cache.has(second)
    np.testing.assert_array_equal(cache.load(first).arrays["slices"], np.load(first.inputs["scan"]))
    assert path.parent.parent.name == "tiny"
    path.write_bytes(path.read_bytes()[:-3])
    assert not cache.sound(first)


def test_the_key_follows_preparation_version_and_files(
    tmp_path: Path, cohort: tuple[Case, ...]
) -> None:
    task = TinyTask(TinySettings())
    cache = Cache(tmp_path, task)
    other = TinySettings()
    data = other.data.model_copy(update={"preparation": TinyPreparation(scale=2.0)})
    scaled = Cache(tmp_path, TinyTask(other.model_copy(update={"data": data})))
    assert scaled.folder != cache.folder

    class Newer(TinyTask):
        preparation_version = 2

    assert Cache(tmp_path, Newer(TinySettings())).folder != cache.folder
    assert Cache(tmp_path, TinyTask(TinySettings())).folder == cache.folder

    case = cohort[0]
    before = cache.path(case)
    assert Cache(tmp_path, task).path(replace(case)) == before
    assert Cache(tmp_path, task).path(replace(case, case_id="b")) != before
    scan = case.inputs["scan"]
    os.utime(scan, ns=(1, 1))
    assert Cache(tmp_path, task).path(case) != before
    # Moved together with its folder, with times kept: the same case.
    stamped = Cache(tmp_path, task).path(case)
    moved = scan.parents[1] / "elsewhere" / scan.parent.name
    moved.parent.mkdir()
    scan.parent.rename(moved)
    assert Cache(tmp_path, task).path(replace(case, inputs={"scan": moved / scan.name})) == stamped


def test_a_folder_as_input_counts_every_file(tmp_path: Path) -> None:
    (tmp_path / "s" / "t").mkdir(parents=True)
    (tmp_path / "s" / "t" / "1").write_text("x")
    (tmp_path / "s" / "0").write_text("y")
    case = Case("c", "p", "u", {"ct": tmp_path / "s"})
    assert [path.name for path, _ in input_files(case)] == ["0", "1"]


def test_an_image_of_a_data_set_counts_as_its_file(tmp_path: Path) -> None:
    """References once counted nothing: an image that was edited kept its place in the cache."""
    image = tmp_path / "a.png"
    image.write_text("x")
    case = Case("c", "p", "u", {"image": ImageReference(image, 2)})
    assert input_files(case) == [(image, 2)]
    cache = Cache(tmp_path, TinyTask(TinySettings()))
    before = cache.path(case)
    image.write_text("longer")
    # A path is worked out once for each object.
    assert cache.path(replace(case)) != before


def test_the_ledger_keeps_lines_and_forgets_torn_ones(tmp_path: Path) -> None:
    cache = Cache(tmp_path, TinyTask(TinySettings()))
    assert cache.ledger() == []
    cache.record("a", "done", seconds=0.5)
    cache.record("b", "refused", code="wrong-size")
    with (cache.folder / "ledger.jsonl").open("ab") as file:
        file.write(b'{"case": "c", "wh')
    assert [(line["case"], line["what"]) for line in cache.ledger()] == [
        ("a", "done"),
        ("b", "refused"),
    ]


def test_what_a_dead_process_left_is_swept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, TinyTask(TinySettings()))
    cache.open()
    old, young = cache.folder / ".writing-old", cache.folder / ".writing-young"
    for file in (old, young):
        file.write_text("half")
    os.utime(old, (1, 1))
    cache.open()
    assert [file.exists() for file in (old, young)] == [False, True]


def test_a_cache_that_cannot_be_written_is_the_machines_fault(
    tmp_path: Path, cohort: tuple[Case, ...]
) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    task = TinyTask(TinySettings())
    cache = Cache(tmp_path / "cache", task)
    with pytest.raises(MachineError, match="cannot be written") as caught:
        cache.open()
    assert "--cache" in caught.value.how
    with pytest.raises(MachineError, match="cannot be written"):
        cache.store(cohort[0], task.prepare(cohort[0]))
