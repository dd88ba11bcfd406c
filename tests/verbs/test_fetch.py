"""Weights are fetched from a hub on loopback, kept with their record, carried by a bundle."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hub_stub import COMMIT, REPOSITORY, Hub, hub_on_loopback
from tiny_bag import TINY_BACKBONE, TinyBag, tiny_settings

from medtool.config.sections import StageSection
from medtool.config.weights import WeightsSection
from medtool.core.errors import (
    CheckpointError,
    MachineError,
    OutputExistsError,
    UnknownNameError,
    UsageError,
)
from medtool.nets.backbones import create_backbone
from medtool.tasks.bag_settings import BagModelSection, BagSettings
from medtool.train.weights import start_weights
from medtool.train.weights_store import fetched_weights
from medtool.verbs import fetch as verb
from medtool.verbs.fetch import FetchOptions, fetch

FILE = "Tiny.pt"


class FetchModel(BagModelSection):
    backbone: str = TINY_BACKBONE
    weights: WeightsSection = WeightsSection(
        repository=REPOSITORY, file=FILE, licence="terms not verified"
    )


class FetchSettings(BagSettings):
    model: FetchModel = FetchModel()


class FetchTask(TinyBag):
    name: ClassVar[str] = "tiny-bag"
    settings_type = FetchSettings


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    # The registry reads installed distributions; this task belongs to none.
    monkeypatch.setattr(verb, "load_task", lambda name: FetchTask)


@pytest.fixture(scope="module")
def weights() -> bytes:
    torch.manual_seed(1)
    opened = io.BytesIO()
    torch.save(create_backbone(TINY_BACKBONE, channels=3).state_dict(), opened)
    return opened.getvalue()


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., FetchOptions]:
    def options(hub: Hub | None = None, place: str = "weights", **more: object) -> FetchOptions:
        folder = tmp_path / place
        return FetchOptions(
            task="tiny-bag",
            assignments=(f"model.weights.folder={folder}",),
            # A port where nobody listens, so that a test never meets the real hub.
            endpoint=hub.endpoint if hub else "http://127.0.0.1:9",
            folder=tmp_path,
            **more,
        )

    return options


def test_fetched_once_with_revision_hash_and_licence(
    weights: bytes, ask: Callable[..., FetchOptions]
) -> None:
    with hub_on_loopback(FILE, weights) as hub:
        first = fetch(ask(hub))
        asked = len(hub.asked)
        second = fetch(ask(hub))
    assert first.file.read_bytes() == weights
    assert first.record.resolved_revision == COMMIT
    assert first.record.licence_text() == "hub: mit; terms not verified"
    assert len(first.record.tensors_sha256) == 64
    assert (first.was_there, second.was_there) == (False, True)
    assert len(hub.asked) == asked, "what is there is not asked for again"
    assert sorted(path.name for path in first.file.parent.iterdir()) == [FILE, FILE + ".json"]


def test_fetched_weights_start_a_training(
    weights: bytes, ask: Callable[..., FetchOptions], tmp_path: Path
) -> None:
    with hub_on_loopback(FILE, weights) as hub:
        fetch(ask(hub))
    section = WeightsSection(repository=REPOSITORY, file=FILE, folder=tmp_path / "weights")
    model = BagModelSection(backbone=TINY_BACKBONE, weights=section)
    network = TinyBag(tiny_settings()).network()
    stages = [StageSection(from_epoch=0, rates={"head": 1e-3})]
    report = start_weights(network, model, stages, fetch="medtool fetch tiny-bag")
    assert report is not None
    assert (report.loaded, report.revision) == (report.total, COMMIT)
    assert "hub: mit" in report.licence


def test_weights_that_changed_on_the_disk_are_refused(
    weights: bytes, ask: Callable[..., FetchOptions], tmp_path: Path
) -> None:
    with hub_on_loopback(FILE, weights) as hub:
        path = fetch(ask(hub)).file
    other = create_backbone(TINY_BACKBONE, channels=3).state_dict()
    torch.save(other, path)
    section = WeightsSection(repository=REPOSITORY, file=FILE, folder=tmp_path / "weights")
    model = BagModelSection(backbone=TINY_BACKBONE, weights=section)
    with pytest.raises(CheckpointError, match="changed since"):
        start_weights(TinyBag(tiny_settings()).network(), model, [], fetch="medtool fetch tiny-bag")


def test_a_bundle_carries_weights_to_a_machine_without_network(
    weights: bytes, ask: Callable[..., FetchOptions], tmp_path: Path
) -> None:
    bundle = tmp_path / "weights.zip"
    with hub_on_loopback(FILE, weights) as hub:
        sent = fetch(ask(hub, bundle=bundle))
    assert sent.bundle == bundle
    received = fetch(ask(None, place="elsewhere", bundle=bundle))
    assert received.file.read_bytes() == weights
    assert received.file != sent.file
    assert received.record == sent.record


def test_a_bundle_that_was_changed_is_refused(
    weights: bytes, ask: Callable[..., FetchOptions], tmp_path: Path
) -> None:
    bundle, forged = tmp_path / "weights.zip", tmp_path / "forged.zip"
    with hub_on_loopback(FILE, weights) as hub:
        fetch(ask(hub, bundle=bundle))
    other = io.BytesIO()
    torch.save(create_backbone(TINY_BACKBONE, channels=3).state_dict(), other)
    with zipfile.ZipFile(bundle) as archive, zipfile.ZipFile(forged, "w") as target:
        record = json.loads(archive.read("weights.json"))
        target.writestr("weights.json", json.dumps({**record, "size_bytes": 10**9}))
        target.writestr("weights", other.getvalue())
    with pytest.raises(CheckpointError, match="changed on the way"):
        fetch(ask(None, place="elsewhere", bundle=forged))


@pytest.mark.parametrize("size", [100, 30 * 1024**3])
def test_a_bundle_is_bounded(
    size: int, weights: bytes, ask: Callable[..., FetchOptions], tmp_path: Path
) -> None:
    bundle, forged = tmp_path / "weights.zip", tmp_path / "forged.zip"
    with hub_on_loopback(FILE, weights) as hub:
        fetch(ask(hub, bundle=bundle))
    with zipfile.ZipFile(bundle) as archive, zipfile.ZipFile(forged, "w") as target:
        record = json.loads(archive.read("weights.json"))
        target.writestr("weights.json", json.dumps({**record, "size_bytes": size}))
        target.writestr("weights", weights)
    with pytest.raises(CheckpointError):
        fetch(ask(None, place="elsewhere", bundle=forged))
    assert not list((tmp_path / "elsewhere").rglob(FILE))


def test_a_file_that_is_no_bundle(ask: Callable[..., FetchOptions], tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    with pytest.raises(CheckpointError, match="no bundle"):
        fetch(ask(None, bundle=tmp_path / "x.zip"))


def test_a_file_of_this_machine(
    weights: bytes, ask: Callable[..., FetchOptions], tmp_path: Path
) -> None:
    local = tmp_path / "mine.pt"
    local.write_bytes(weights)
    result = fetch(ask(None, file=local))
    assert result.file.read_bytes() == weights
    assert result.record.resolved_revision == ""
    with pytest.raises(OutputExistsError):
        fetch(ask(None, file=local))
    assert not fetch(ask(None, file=local, force=True)).was_there


def test_no_such_file_in_the_repository(weights: bytes, ask: Callable[..., FetchOptions]) -> None:
    with (
        hub_on_loopback("Tiny.pth", weights) as hub,
        pytest.raises(UnknownNameError) as caught,
    ):
        fetch(ask(hub))
    assert caught.value.nearest == "Tiny.pth"


def test_no_such_repository(weights: bytes, ask: Callable[..., FetchOptions]) -> None:
    options = ask(None)
    named = (*options.assignments, "model.weights.repository=someone/Else")
    with hub_on_loopback(FILE, weights) as hub:
        asked = FetchOptions(task="tiny-bag", assignments=named, endpoint=hub.endpoint)
        with pytest.raises(UsageError, match="no such repository"):
            fetch(asked)


def test_without_network_the_bundle_is_named(ask: Callable[..., FetchOptions]) -> None:
    with pytest.raises(MachineError) as caught:
        fetch(ask(None))
    assert "--bundle" in caught.value.how


def test_a_download_that_is_no_weights_is_not_kept(
    ask: Callable[..., FetchOptions], tmp_path: Path
) -> None:
    with (
        hub_on_loopback(FILE, b"<html>moved</html>") as hub,
        pytest.raises(CheckpointError, match="cannot be read as weights"),
    ):
        fetch(ask(hub))
    section = WeightsSection(repository=REPOSITORY, file=FILE, folder=tmp_path / "weights")
    assert fetched_weights(section) is None


def test_a_preset_without_weights(ask: Callable[..., FetchOptions]) -> None:
    options = FetchOptions(task="tiny-bag", assignments=("model.weights.repository=",))
    with pytest.raises(UsageError, match="no weights of the hub"):
        fetch(options)


def command(hub: Hub, *words: str) -> subprocess.CompletedProcess[str]:
    """``medtool fetch`` in a process of its own, with a hub as huggingface-hub is told of it."""
    return subprocess.run(
        [sys.executable, "-m", "medtool.cli.app", "fetch", "brainmet", *words],
        env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1"},  # noqa: TID251
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_shows_licence_and_hash_and_prints_json(weights: bytes, tmp_path: Path) -> None:
    named = [
        f"--set=model.weights.{key}"
        for key in (f"repository={REPOSITORY}", f"file={FILE}", f"folder={tmp_path / 'w'}")
    ]
    with hub_on_loopback(FILE, weights, licence=None) as hub:
        first = command(hub, *named, "--bundle", str(tmp_path / "b.zip"))
        second = command(hub, *named, "--json", "--quiet")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "licence   hub: none stated" in first.stdout
    assert COMMIT in first.stderr
    assert (tmp_path / "b.zip").is_file()
    told = json.loads(second.stdout)
    assert (told["already_there"], told["resolved_revision"]) == (True, COMMIT)
    assert told["tensors_sha256"] in first.stdout
    assert second.stderr == ""


def test_a_preset_that_starts_at_random_has_nothing_to_fetch() -> None:
    options = FetchOptions(task="tiny-bag", assignments=("model.from_scratch=true",))
    with pytest.raises(UsageError) as error:
        fetch(options)
    assert error.value.how == "there is nothing to fetch."
