"""Features of parts that never learn are computed once and train as their images do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_bag import TinyBag, tiny_cases, tiny_settings

from medtool.core.errors import MachineError
from medtool.core.records import Case, ExampleKey
from medtool.data import machine
from medtool.data.cache import Cache
from medtool.tasks import bag_features
from medtool.tasks.bag_features import EPOCH_OF_COPIES, FeatureExamples

HEAD = {"head"}


class Setting:
    """A task whose cases are prepared, and a network with random weights."""

    def __init__(self, folder: Path, **sections: Mapping[str, Any]) -> None:
        sections = {"train": {"feature_copies": 3}, **sections}
        self.task = TinyBag(tiny_settings(**sections))
        self.cases: list[Case] = tiny_cases(3)
        cache = Cache(folder / "cache", self.task)
        for case in self.cases:
            cache.store(case, self.task.prepare(case))
        self.paths = {case.case_id: cache.path(case) for case in self.cases}
        self.folder = folder / "features"
        torch.manual_seed(0)
        self.network = self.task.network()

    def precompute(self, learning: set[str] = HEAD) -> Mapping[str, Path]:
        return self.task.precompute(
            self.network,
            self.cases[:2],
            self.cases[2:],
            self.paths,
            self.folder,
            learning=learning,
            device=torch.device("cpu"),
        )


@pytest.mark.parametrize(
    ("learning", "first_step"), [(HEAD, 6), ({"layer4", "head"}, 4), ({"layer3", "head"}, 3)]
)
def test_features_answer_as_images_do(learning: set[str], first_step: int, tmp_path: Path) -> None:
    given = Setting(tmp_path)
    files = given.precompute(learning)
    network = given.network.eval()
    for index, case in enumerate(given.cases):
        keys = [ExampleKey(0, 0, index)]
        answers = []
        for paths in (given.paths, files):
            examples = given.task.examples(given.cases, paths, training=False)
            samples = [examples[key] for key in keys]
            batch = examples.collate(samples, [case], 0, 0)
            with torch.no_grad():
                answers.append(given.task.validate(network, batch)["logit"][0])
        assert answers[0] == pytest.approx(answers[1], rel=1e-5)
    assert samples[0].first_step == first_step


def test_a_copy_is_the_features_of_the_slice_that_its_key_augments(tmp_path: Path) -> None:
    given = Setting(tmp_path)
    examples = given.task.examples(given.cases[:2], given.precompute(), training=True)
    assert isinstance(examples, FeatureExamples)
    found = examples[ExampleKey(0, 5, 1)]
    images = given.task.examples(given.cases[:2], given.paths, training=True)
    network = given.network.eval()
    copies = []
    for copy in (1, 2, 3):
        key = ExampleKey(0, EPOCH_OF_COPIES, 1, copy)
        with torch.no_grad():
            copies.append(network.features(images.images(key, found.slices)))
    errors = [(found.inputs - copy).abs().max().item() for copy in copies]
    assert sorted(error < 1e-5 for error in errors) == [False, False, True]


def test_epochs_draw_among_all_copies_but_never_the_plain_one(tmp_path: Path) -> None:
    given = Setting(tmp_path)
    files = given.precompute()
    examples = given.task.examples(given.cases[:2], files, training=True)
    stored = np.load(files["case01"])
    assert stored.shape[0] == 4
    drawn = {
        next(n for n in range(4) if np.array_equal(stored[n], examples[key].inputs.numpy()))
        for key in (ExampleKey(0, epoch, 1) for epoch in range(40))
    }
    assert drawn == {1, 2, 3}
    again = examples[ExampleKey(0, 7, 1)].inputs
    assert torch.equal(again, examples[ExampleKey(0, 7, 1)].inputs)


def test_the_head_learns_the_same_from_features(tmp_path: Path) -> None:
    given = Setting(tmp_path, augment={"enabled": False})
    files = given.precompute()
    network = given.network
    network.get_submodule("backbone").requires_grad_(False)
    gradients = []
    for paths in (given.paths, files):
        network.zero_grad()
        network.train()
        network.get_submodule("backbone").eval()
        examples = given.task.examples(given.cases[:2], paths, training=True)
        samples = [examples[ExampleKey(0, 0, index)] for index in range(2)]
        batch = examples.collate(samples, given.cases[:2], 0, 0)
        given.task.losses(network, batch)["loss"].backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for image, feature in zip(*gradients, strict=True):
        torch.testing.assert_close(image, feature, rtol=1e-4, atol=1e-7)


def test_a_resumed_run_finds_its_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Setting(tmp_path)
    files = given.precompute()
    times = {path: path.stat().st_mtime_ns for path in files.values()}
    files["case00"].unlink()
    computed: list[int] = []
    inner = bag_features._features

    def counted(*values: Any) -> Any:
        computed.append(values[2])
        return inner(*values)

    monkeypatch.setattr(bag_features, "_features", counted)
    assert given.precompute() == files
    assert computed == [0], "only what is missing is computed"
    assert files["case01"].stat().st_mtime_ns == times[files["case01"]]


def test_other_weights_or_another_augmentation_are_other_features(tmp_path: Path) -> None:
    given = Setting(tmp_path)
    folders = {given.precompute()["case00"].parent}
    with torch.no_grad():
        next(given.network.get_submodule("backbone.layer1").parameters()).add_(1e-3)
    folders.add(given.precompute()["case00"].parent)
    given.task = TinyBag(tiny_settings(train={"feature_copies": 3, "seed": 1}))
    folders.add(given.precompute()["case00"].parent)
    # The head and what learns are not part of what features depend on.
    with torch.no_grad():
        next(given.network.get_submodule("head").parameters()).add_(1.0)
    folders.add(given.precompute()["case00"].parent)
    assert len(folders) == 3


class Widened(TinyBag):
    """Slices of another window."""

    def preparation_key(self) -> Mapping[str, Any]:
        return {"window_width_hu": 200.0}


def test_another_preparation_is_other_features(tmp_path: Path) -> None:
    """From a fault: a run that began again with another window kept the features of the first."""
    given = Setting(tmp_path)
    before = given.precompute()["case00"].parent
    given.task = Widened(given.task.settings)
    assert given.precompute()["case00"].parent != before


def test_nothing_is_computed_where_everything_learns(tmp_path: Path) -> None:
    given = Setting(tmp_path)
    everything = set(given.task.groups(given.network))
    assert given.precompute(everything) == given.paths
    off = Setting(tmp_path / "off", train={"feature_copies": 0})
    assert off.precompute() == off.paths


def test_a_disk_that_is_too_small_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Setting(tmp_path)
    monkeypatch.setattr(machine, "free_disk_bytes", lambda path: 10_000)
    with pytest.raises(MachineError, match="disk is too small"):
        given.precompute()
    assert not list(given.folder.rglob("*.npy"))


def test_another_backbone_is_frozen_as_a_whole(tmp_path: Path) -> None:
    given = Setting(tmp_path, model={"backbone": "mobilenetv3_small_050"})
    stored = np.load(given.precompute()["case02"])
    assert stored.shape == (1, 8, 1024)
