"""``doctor``: what this machine can do, and whether it computes what a checkpoint promises."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from medtool import __version__
from medtool.core.checkpoint import find_checkpoint, read_header, verify_tensors
from medtool.core.deployed import find_deployed
from medtool.core.ensemble import members_of
from medtool.core.errors import CheckpointError
from medtool.data.machine import describe_machine, free_disk_bytes
from medtool.predict.engines.presence import EngineHere
from medtool.verbs.doctor_engines import (
    Proof,
    advice,
    engines_and_builds,
    kept_promise,
    likely_fastest,
    prove_deployed,
)

# What each package is for; those that are not named here serve the others.
PURPOSES: Mapping[str, str] = {
    "torch": "networks: training, and answering with PyTorch",
    "timm": "backbones by name",
    "lightning-fabric": "devices, precision, several processes",
    "pydicom": "reading DICOM",
    "imagecodecs": "compressed DICOM: JPEG, JPEG-LS, JPEG 2000, HTJ2K",
    "highdicom": "masks as DICOM SEG",
    "simpleitk": "images in true geometry, NIfTI",
    "blosc2": "the cache",
    "safetensors": "checkpoints",
    "huggingface-hub": "medtool fetch",
    "matplotlib": "figures of the report",
    "tensorboard": "events of a training",
    "onnx": "models as ONNX files",
    "onnxscript": "networks of PyTorch as ONNX files",
    "onnxruntime": "answering with ONNX files, without PyTorch",
    "openvino": "answering fastest on processors of Intel and AMD",
    "torch-pruning": "networks with fewer channels",
}
# Extras of those who work on medtool itself: no user misses anything in them.
DEVELOPERS_EXTRAS = frozenset({"dev", "test"})


@dataclass(frozen=True)
class Package:
    """One package that medtool asks for; ``extra`` is "" for the base install."""

    name: str
    wanted: str
    found: str
    extra: str
    purpose: str

    @property
    def install_line(self) -> str:
        """How to get it."""
        return f'pip install "medtool[{self.extra}]"' if self.extra else "pip install medtool"


@dataclass(frozen=True)
class Device:
    """One device that networks can run on."""

    name: str
    description: str
    precisions: tuple[str, ...]


@dataclass(frozen=True)
class Codec:
    """One transfer syntax of DICOM, and whether it can be read here."""

    uid: str
    name: str
    readable: bool
    why: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What this machine can do."""

    machine: Mapping[str, object]
    free_bytes: int
    python: str
    packages: tuple[Package, ...]
    devices: tuple[Device, ...]
    codecs: tuple[Codec, ...]
    proofs: tuple[Proof, ...] = ()
    engines: tuple[EngineHere, ...] = ()
    # The engine that is usually the fastest on such a processor, and why.
    fastest: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        document = asdict(self)
        document["medtool"] = __version__
        document["proofs"] = [{**asdict(p), "checkpoint": str(p.checkpoint)} for p in self.proofs]
        document["advice"] = self.advice
        return document

    @property
    def advice(self) -> str:
        """What to answer with where an optimised model's own way fails here; "" where it does not.

        The file and the engine that do keep its promise, and how to name them.
        """
        return advice(self.proofs)

    @property
    def healthy(self) -> bool:
        """Whether the base install is whole, a device is there and the model's probe passed.

        Of an optimised model that of the file and the engine that answer by default.
        """
        base = all(package.found for package in self.packages if not package.extra)
        return base and bool(self.devices) and kept_promise(self.proofs)


def doctor(checkpoint: Path | None = None, *, device: str = "auto") -> Diagnosis:
    """Look at the machine; with ``checkpoint`` prove its probe in every precision there is.

    Raises CheckpointError where the file is no checkpoint, is damaged or holds no probe.
    """
    return Diagnosis(
        machine=describe_machine().as_dict(),
        free_bytes=free_disk_bytes(Path()),
        python=sys.version.split()[0],
        packages=tuple(packages()),
        devices=tuple(devices()),
        codecs=tuple(codecs()),
        proofs=tuple(prove(checkpoint, device)) if checkpoint is not None else (),
        engines=tuple(engines_and_builds()),
        fastest=likely_fastest(),
    )


def packages() -> list[Package]:
    """Every package that a user needs, base first, and the version that is there."""
    found = []
    for line in requires("medtool") or []:
        requirement, _, marker = line.partition(";")
        match = re.match(r"\s*([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(.*)", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", marker)
        if match is None or match[1].lower() == "medtool":
            continue
        if extra is not None and extra[1] in DEVELOPERS_EXTRAS:
            continue
        name = match[1].lower()
        try:
            there = version(name)
        except PackageNotFoundError:
            there = ""
        found.append(
            Package(
                name, match[2].strip(), there, extra[1] if extra else "", PURPOSES.get(name, "")
            )
        )
    return sorted(found, key=lambda package: (package.extra, package.name))


def devices() -> list[Device]:
    """The devices that torch can use here; [] without torch."""
    try:
        import torch
    except ImportError:
        return []
    from medtool.nets.device import computes_slowly

    threads = torch.get_num_threads()
    imitated = computes_slowly(torch.bfloat16, torch.device("cpu"))
    found = [Device("cpu", f"{threads} threads", ("32",) if imitated else ("32", "bf16"))]
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(number)
        precisions = ("32", "16", "bf16") if torch.cuda.is_bf16_supported() else ("32", "16")
        memory = f"{facts.total_memory / 1e9:.0f} GB"
        found.append(Device(f"cuda:{number}", f"{facts.name}, {memory}", precisions))
    if torch.backends.mps.is_available():
        found.append(Device("mps", "Apple", ("32", "16")))
    return found


def codecs() -> list[Codec]:
    """The transfer syntaxes of images that medtool knows, and whether they can be read here."""
    from pydicom.uid import UID

    from medtool.dicom.decode import DECODABLE
    from medtool.dicom.frames import ENCAPSULATED_NATIVE, NATIVE, RLE

    own = NATIVE | {ENCAPSULATED_NATIVE, RLE}
    try:
        import imagecodecs  # noqa: F401 - whether its libraries load is the question

        lacking = ""
    except ImportError as error:
        lacking = f"imagecodecs: {error}"
    return [
        Codec(uid, UID(uid).name, uid in own or not lacking, "" if uid in own else lacking)
        for uid in sorted(DECODABLE)
    ]


def prove(path: Path, device: str = "auto") -> list[Proof]:
    """Answer to the probe of a checkpoint in float32, and in bfloat16 where the device has it.

    Of an optimised model each of its files by each engine that reads it. Raises CheckpointError
    where it is damaged or holds no probe.
    """
    file, _ = find_checkpoint(path)
    deployed = find_deployed(file)
    if deployed is not None:
        return prove_deployed(deployed, device)
    header = read_header(file)
    damaged = verify_tensors(header)
    if damaged:
        raise CheckpointError(
            "This checkpoint is damaged.",
            where=str(file),
            met=f"{len(damaged)} tensors differ from what was written, {damaged[0]} first",
            how="copy it again from where it came from.",
        )
    from medtool.predict.model import load_model
    from medtool.train.probe import check_probe, has_probe

    names = [member.name for member in members_of(header)] or [""]
    if not all(has_probe(header.tensors, member=name) for name in names):
        raise CheckpointError(
            "This checkpoint holds no probe.",
            where=str(file),
            wanted="tensors probe.input.* and probe.output.*",
        )
    proofs = []
    for precision in ("32", "bf16"):
        model = load_model(file, device=device, precision=precision, alone=True)
        with model.autocast():
            results = [
                check_probe(
                    file,
                    one.network,
                    one.task.deployment(),
                    reduced=precision != "32",
                    member=one.name,
                )
                for one in model.members or (model,)
            ]
        # Of several models the worst speaks for all.
        result = max(results, key=lambda one: (not one.passed, one.share))
        proofs.append(
            Proof(file, str(model.device), precision, result.share, result.tolerance, result.passed)
        )
        if model.device.type == "mps":
            break
    return proofs
