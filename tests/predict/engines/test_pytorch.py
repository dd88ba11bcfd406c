"""PyTorch as an engine: the same network in float32, in bfloat16, compiled, as others run it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medtool.core.errors import MachineError
from medtool.core.records import DeploymentSpec
from medtool.predict.engines.pytorch import PyTorchEngine

SPEC = DeploymentSpec(inputs={"image": (1, 1, 8, 8)}, outputs=("logits", "largest"))


class TwoLayers(nn.Module):
    """Two convolutions, and the largest of what they say."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.second(torch.relu(self.first(image)))
        return maps, maps.amax((1, 2, 3))


def rounded(values: torch.Tensor) -> np.ndarray:
    """Values as bfloat16 keeps them: the upper half of a float32, rounded to even."""
    bits = values.detach().numpy().view(np.uint32).astype(np.uint64)
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
    return kept.astype(np.uint32).view(np.float32)


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32() -> None:
    module = TwoLayers()
    image = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32)
    exact = PyTorchEngine(module, SPEC).run({"image": image})
    engine = PyTorchEngine(module, SPEC, bfloat16=True)
    assert engine.arithmetic == "bfloat16"
    found = engine.run({"image": image})
    for name in SPEC.outputs:
        assert (found[name].dtype, found[name].shape) == (np.float32, exact[name].shape)
    # Every value is one that bfloat16 has, and within its rounding (2 ** -8) of the exact one.
    assert np.array_equal(found["logits"], rounded(torch.from_numpy(found["logits"])))
    size = np.abs(exact["logits"]).max()
    difference = np.abs(found["logits"] - exact["logits"]).max()
    assert 0 < difference < 4 * 2**-8 * size
    assert not np.array_equal(exact["logits"], rounded(torch.from_numpy(exact["logits"])))


def test_outputs_that_are_asked_for_come_alone() -> None:
    image = np.ones((2, 1, 8, 8), np.float32)
    module = TwoLayers()
    engine = PyTorchEngine(module, SPEC)
    (largest,) = engine.run({"image": image}, ["largest"]).items()
    with torch.no_grad():
        wanted = module.second(torch.relu(module.first(torch.ones(2, 1, 8, 8)))).amax((1, 2, 3))
    assert largest[0] == "largest"
    np.testing.assert_allclose(largest[1], wanted.numpy(), rtol=1e-6)


class SaysHowItRuns(nn.Module):
    """The image, and 1 where it was compiled: PyTorch does not say otherwise what it did."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return image, torch.zeros(1) + (1 if torch.compiler.is_compiling() else 0)


def test_however_many_shapes_and_threads_all_of_them_are_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyTorch keeps eight compilations and is eager from the ninth on, without a word."""
    # The graph is traced and not compiled further: which of the two was run is the question.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    module, before = SaysHowItRuns(), torch.get_num_threads()
    compiled = []
    try:
        for threads in range(1, 6):
            torch.set_num_threads(threads)
            engine = PyTorchEngine(module, SPEC, compiled=True)
            for images in (1, 2):
                found = engine.run({"image": np.ones((images, 1, 8, 8), np.float32)})
                assert found["logits"].shape == (images, 1, 8, 8)
                compiled.append(float(found["largest"][0]))
    finally:
        torch.set_num_threads(before)
    assert compiled == [1.0] * 10


def test_what_another_engine_undid_is_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counting(graph: Any, inputs: Any) -> Any:
        # Warnings of the compiler are silenced while it is at work, and only then.
        made.append(logging.root.manager.disable)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counting))
    image = {"image": np.ones((1, 1, 8, 8), np.float32)}
    first, second = (PyTorchEngine(TwoLayers(), SPEC, compiled=True) for _ in range(2))
    for engine in (first, first, second, first, first):
        engine.run(image)
    assert made == [logging.WARNING] * 3


class CutInMany(nn.Module):
    """More layers than PyTorch compiles of one piece of code, with the end of a graph in each."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Cut(k) for k in range(12))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for layer in self.layers:
            image = layer(image)
        return image, image.amax((1, 2, 3))


class _Cut(nn.Module):
    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return image + self.added


def test_the_compiler_says_nothing_between_the_lines_of_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    told: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: told.append(record.getMessage()))
    logger = logging.getLogger("torch._dynamo")
    logger.addHandler(handler)
    try:
        engine = PyTorchEngine(CutInMany(), SPEC, compiled=True)
        found = engine.run({"image": np.ones((1, 1, 8, 8), np.float32)})
        assert told == []
        logger.warning("said")
        assert told == ["said"]
    finally:
        logger.removeHandler(handler)
    assert float(found["largest"][0]) == 1 + sum(range(12))


@pytest.mark.skipif(not shutil.which("g++"), reason="no compiler of C++ is here")
@pytest.mark.parametrize("bfloat16", [False, True])
def test_compiled_it_says_what_it_says_eagerly(bfloat16: bool) -> None:  # noqa: FBT001
    """In earnest: kernels of C++ are written, compiled and loaded."""
    module = TwoLayers()
    image = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    wanted = PyTorchEngine(module, SPEC).run({"image": image})
    engine = PyTorchEngine(module, SPEC, bfloat16=bfloat16, compiled=True)
    found = engine.run({"image": image})
    size = np.abs(wanted["logits"]).max()
    for name in SPEC.outputs:
        assert (found[name].dtype, found[name].shape) == (np.float32, wanted[name].shape)
        difference = float(np.abs(found[name] - wanted[name]).max())
        assert difference < (4 * 2**-8 if bfloat16 else 1e-5) * size
        assert difference > 0 or not bfloat16


def test_a_network_that_cannot_be_compiled_is_a_refusal_that_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*words: Any) -> Callable[..., Any]:
        raise RuntimeError("C++ compile error\n\nCommand:\ng++ x.cpp\nx.cpp:1:2: fatal error: no P")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    engine = PyTorchEngine(TwoLayers(), SPEC, compiled=True)
    with pytest.raises(MachineError, match="cannot compile this network") as refused:
        engine.run({"image": np.ones((1, 1, 8, 8), np.float32)})
    assert refused.value.met == "fatal error: no P"
    assert "--no-compile" in refused.value.how


WHY_NOT = "from medtool.predict.engines.pytorch import why_not_compiled; print(why_not_compiled())"


@pytest.mark.parametrize("hidden", ["PATH", "CXX"])
def test_without_a_compiler_it_is_said_what_to_do(
    tmp_path: Path, fresh_python: Callable[..., Any], hidden: str
) -> None:
    """One that is there counts for nothing where CXX names another."""
    there_is_none = {"PATH": str(tmp_path), "CXX": None}
    environment = there_is_none if hidden == "PATH" else {"CXX": "no-such-compiler"}
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    outcome = fresh_python("-c", WHY_NOT, environment={**environment, **cache})
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("no compiler of C++ is found: install one (g++ on Linux")
    assert "CXX" in outcome.out
