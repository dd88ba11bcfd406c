"""Rules of the house about imports: layers, start-up, what runs without torch or network."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from litert_files import write_sum_and_sigmoid
from small_graphs import plain_graph

ROOT = Path(__file__).resolve().parents[2]
# What a help page has no use for, each of them slower than the page itself.
HEAVY = ("torch", "numpy", "pydicom", "pydantic", "pandas", "scipy", "SimpleITK", "timm", "cv2")
WITHOUT_TORCH = ("core", "config", "dicom", "data", "score", "predict/engines")
# The one module below these that stands for PyTorch itself.
OF_PYTORCH = "medtool.predict.engines.pytorch"


def modules_of(*layers: str) -> list[str]:
    return [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for layer in layers
        for file in sorted((ROOT / "medtool" / layer).rglob("*.py"))
    ]


def test_imports_point_down_only():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "words", [("--help",), ("--version",), ("train", "--help"), ("infer", "--help"), ("tsks",)]
)
def test_help_imports_nothing_heavy(fresh_python, words):
    code = f"""
import sys
from medtool.cli.app import main
main({list(words)!r})
print("loaded:", *sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""
    outcome = fresh_python("-c", code)
    assert outcome.err.splitlines()[-1] == "loaded:"


def test_a_short_command_imports_no_rich(fresh_python):
    """rich costs more than all else that a short command does: only bars and help pages need it."""
    code = """
import sys
from medtool.cli.app import main
main(["--version"])
sys.exit("rich" in sys.modules)
"""
    assert fresh_python("-c", code).status == 0


def test_listing_tasks_imports_no_torch_and_no_numpy(fresh_python):
    """A plugin's class needs torch, numpy and the like only inside its functions."""
    code = """
import sys
from medtool.cli.app import main
main(["tasks"])
heavy = {"torch", "timm", "SimpleITK", "cv2", "numpy", "scipy"}
print("loaded:", *sorted(heavy & set(sys.modules)))
"""
    outcome = fresh_python("-c", code)
    assert outcome.out.splitlines()[-1] == "loaded:"
    assert "cannot be loaded" not in outcome.out


NO_TORCH = """
import sys
from importlib import import_module

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "lightning_fabric"):
            raise ModuleNotFoundError(f"{name} is not here", name=name)

sys.meta_path.insert(0, NoTorch())
"""


@pytest.mark.parametrize("layer", WITHOUT_TORCH)
def test_the_layer_runs_without_torch(fresh_python, layer):
    names = [name for name in modules_of(layer) if name != OF_PYTORCH]
    code = f"""
{NO_TORCH}
for name in {names!r}:
    import_module(name)
"""
    outcome = fresh_python("-c", code)
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "litert"])
def test_an_engine_answers_without_torch(fresh_python, tmp_path, engine):
    """What engines import when they are opened counts as well."""
    if engine == "litert":
        file = write_sum_and_sigmoid(tmp_path / "model.tflite")
        shape = (2, 1, 2, 3)
    else:
        file, shape = plain_graph(tmp_path / "model.onnx"), (2, 1, 8, 8)
    code = f"""
{NO_TORCH}
from pathlib import Path
import numpy as np
from medtool.predict.engines import open_engine
engine = open_engine(Path({str(file)!r}), engine={engine!r}, threads=1)
print(engine.run({{"image": np.zeros({shape}, np.float32)}})["logits"].shape)
"""
    outcome = fresh_python("-c", code)
    assert outcome.status == 0, outcome.err
    assert outcome.out.strip() == str(shape)


def test_only_the_engine_of_pytorch_imports_it():
    for file in sorted((ROOT / "medtool" / "predict" / "engines").glob("*.py")):
        imported = {name.partition(".")[0] for name in _imports(file)}
        assert ("torch" in imported) == (file.name == "pytorch.py"), file


def _imports(file: Path) -> set[str]:
    """What a file imports anywhere in it, in functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


NO_SOCKETS = """
import socket, sys
from importlib import import_module

class Forbidden(socket.socket):
    def connect(self, address):
        raise SystemExit(f"connects to {address}")
    connect_ex = sendto = connect

def forbidden(*arguments, **named):
    raise SystemExit(f"looks up {arguments}")

socket.socket = Forbidden
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = forbidden
"""


def test_no_import_opens_a_socket(fresh_python):
    """albumentations asks PyPI for updates unless told not to; hubs and telemetry may, too."""
    layers = ("core", "config", "dicom", "data", "nets", "score", "train", "predict", "tasks")
    code = f"""
{NO_SOCKETS}
from medtool.core.environment import keep_imports_offline
keep_imports_offline()
import albumentations
for name in {modules_of(*layers, "report", "verbs")!r}:
    import_module(name)
from medtool.core.registry import load_task, task_names
for name in task_names():
    load_task(name)
for name in {[module for module in plugin_modules()]!r}:
    import_module(name)
"""
    outcome = fresh_python("-c", code, environment={"NO_ALBUMENTATIONS_UPDATE": None})
    assert outcome.status == 0, outcome.err


def test_the_trap_for_sockets_works(fresh_python):
    """Without our word, albumentations walks into it: else the test above proves nothing."""
    code = f"{NO_SOCKETS}\nimport albumentations"
    outcome = fresh_python("-c", code, environment={"NO_ALBUMENTATIONS_UPDATE": None})
    assert outcome.status == 1
    assert "looks up" in outcome.err


def test_openvino_tells_nobody_that_it_was_imported(fresh_python):
    code = f"""
{NO_SOCKETS}
import sys
from medtool.predict.engines.openvino_import import openvino_core
openvino_core()
assert sys.modules["openvino_telemetry"] is None
from openvino.tools.ovc import telemetry_utils
assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
"""
    # Where CI is set it would say nothing anyhow.
    outcome = fresh_python("-c", code, environment={"CI": None})
    assert outcome.status == 0, outcome.err


def test_openvino_is_imported_in_one_place():
    """Imported without that place it phones home."""
    for file in sorted((ROOT / "medtool").rglob("*.py")):
        if any(name.partition(".")[0] in ("openvino", "nncf") for name in _imports(file)):
            assert file.name == "openvino_import.py", file


def test_plugins_stay_below_the_verbs():
    """A plugin imports the families and what is below them: no verb, no door, no other plugin."""
    plugins = {module.partition(".")[0] for module in plugin_modules()}
    for file in sorted((ROOT / "plugins").rglob("*.py")):
        own = file.relative_to(ROOT / "plugins").parts[0]
        for name in _imports(file):
            assert not name.startswith(("medtool.verbs", "medtool.cli")), (file, name)
            assert name.partition(".")[0] not in plugins - {own}, (file, name)


def plugin_modules() -> list[str]:
    return [
        ".".join(file.relative_to(ROOT / "plugins").with_suffix("").parts).removesuffix(".__init__")
        for file in sorted((ROOT / "plugins").rglob("*.py"))
    ]
