"""Every kind of install gives the whole of medtool, from the project's files and nothing else.

The packages that medtool needs come from the environment of these tests, and no command here has
a network: where Linux gives one, each runs in a network of its own that is down.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from outer_packages import link_packages, needed_by, outer_distributions, pack

ROOT = Path(__file__).resolve().parents[2]
# What pip and pipx put into environments of their own.
BUILD_TOOLS = ("hatchling", "editables", "pip", "setuptools")
MEGABYTE = 1_000_000
# A clone is small: no scans, no weights, no environments.
LARGEST_CHECKOUT_BYTES, LARGEST_FILE_BYTES = 12 * MEGABYTE, 1 * MEGABYTE

Offline = Callable[..., str]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs links and a make")


def project_files() -> list[str]:
    """The project's files as git knows them, with those that will be added."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no git checkout: the list of the project's files is not known")
    return sorted({name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()})


@pytest.fixture(scope="module")
def files() -> list[str]:
    return project_files()


@pytest.fixture(scope="module")
def checkout(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, so that no install touches the real one."""
    folder = tmp_path_factory.mktemp("project") / "medtool"
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def build_house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of what building needs, for pip's environments of a moment."""
    folder = tmp_path_factory.mktemp("build-house")
    for tool in BUILD_TOOLS:
        for found in needed_by(tool):
            pack(found, folder)
    return folder


@pytest.fixture(scope="module")
def outer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to all packages around medtool, that other environments borrow."""
    return link_packages(tmp_path_factory.mktemp("outer") / "packages")


@pytest.fixture(scope="module")
def offline(run_offline: Offline, build_house: Path) -> Offline:
    """Run a command without network; pip finds what building needs in a folder."""

    def run(*words: str | Path, folder: Path | None = None, **variables: str | Path) -> str:
        given = {"PIP_FIND_LINKS": build_house, **variables}
        return run_offline(*words, folder=folder, **given)

    return run


@pytest.fixture(scope="module")
def built(
    checkout: Path, offline: Offline, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The wheel and the sdist, both built from the checkout."""
    folder = tmp_path_factory.mktemp("built")
    offline(sys.executable, "-m", "build", "--wheel", "--sdist", "--outdir", folder, checkout)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return wheel, sdist


def new_environment(folder: Path, borrowed: Path | None = None) -> Path:
    """An empty environment, with the packages in ``borrowed`` beside its own; gives ``bin``."""
    venv.create(folder, with_pip=False)
    if borrowed is not None:
        bridge = site_packages(folder) / "borrowed.pth"
        bridge.write_text(f"{borrowed}\n", encoding="utf-8")
    return folder / "bin"


def site_packages(environment: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return environment / "lib" / version / "site-packages"


def pip_into(binaries: Path) -> list[str | Path]:
    """The words of ``pip install`` for another environment; what it borrows counts as there."""
    return [sys.executable, "-m", "pip", "--python", binaries / "python", "install", "--quiet"]


def shipped_presets(files: list[str]) -> list[tuple[str, str]]:
    found = [Path(name) for name in files if name.startswith("presets/")]
    return sorted((path.parent.name, path.stem) for path in found if path.suffix == ".toml")


def assert_whole(command: Path, offline: Offline, folder: Path, files: list[str]) -> None:
    """``command`` knows its version, every task and every preset, from another folder."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert offline(command, "--version", folder=folder).split()[-1] == project["version"]
    tasks = json.loads(offline(command, "tasks", "--json", folder=folder))["tasks"]
    assert [task["name"] for task in tasks] == sorted(project["entry-points"]["medtool.tasks"])
    assert not [task for task in tasks if task.get("problem")]
    presets = json.loads(offline(command, "presets", "--json", folder=folder))["presets"]
    listed = sorted((preset["task"], preset["name"]) for preset in presets)
    assert listed == shipped_presets(files)
    assert {preset["place"] for preset in presets} == {"shipped"}
    assert not [preset for preset in presets if preset.get("problem")]
    for task, preset in listed:
        tomllib.loads(offline(command, "presets", task, preset, folder=folder))


def test_a_clone_is_small(files: list[str]) -> None:
    sizes = {name: (ROOT / name).stat().st_size for name in files}
    assert sum(sizes.values()) < LARGEST_CHECKOUT_BYTES
    assert max(sizes.values()) < LARGEST_FILE_BYTES, max(sizes, key=lambda name: sizes[name])


def test_the_wheel_holds_the_code_the_presets_and_the_licence(
    built: tuple[Path, Path], files: list[str]
) -> None:
    """Every file of the two folders of code and of the presets, in its place, and no other."""
    wanted = {name for name in files if name.startswith("medtool/")}
    wanted |= {n.removeprefix("plugins/") for n in files if n.startswith("plugins/")}
    wanted |= {f"medtool/{name}" for name in files if name.startswith("presets/")}
    with zipfile.ZipFile(built[0]) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names)), "a file is there twice"
    information = {name for name in names if ".dist-info/" in name}
    assert set(names) - information == wanted
    assert {"medtool/py.typed", "medtool/report/assets/page.html"} <= wanted
    assert any(name.endswith("/licenses/LICENSE") for name in information)
    assert any(name.endswith("/entry_points.txt") for name in information)


def test_the_sdist_holds_what_builds_and_tests_it(
    built: tuple[Path, Path], files: list[str]
) -> None:
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("medtool/", "plugins/", "presets/", "tests/", "docs/")
    assert {name for name in files if name.startswith(folders)} <= names
    assert {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO"} <= names
    assert built[1].stat().st_size < LARGEST_CHECKOUT_BYTES


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_an_install_in_an_empty_environment(
    kind: str,
    built: tuple[Path, Path],
    outer: Path,
    offline: Offline,
    files: list[str],
    tmp_path: Path,
) -> None:
    """pip checks the ranges of pyproject.toml against the packages that the tests run with."""
    binaries = new_environment(tmp_path / "environment", outer)
    offline(*pip_into(binaries), built[0] if kind == "wheel" else built[1])
    assert_whole(binaries / "medtool", offline, tmp_path, files)


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_checkout(
    built: tuple[Path, Path], offline: Offline, tmp_path: Path
) -> None:
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    offline(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "again", unpacked)
    (again,) = (tmp_path / "again").glob("*.whl")
    with zipfile.ZipFile(built[0]) as one, zipfile.ZipFile(again) as other:
        assert one.namelist() == other.namelist()
        assert all(one.read(name) == other.read(name) for name in one.namelist())


def test_an_editable_install_follows_the_checkout(
    checkout: Path, outer: Path, offline: Offline, files: list[str], tmp_path: Path
) -> None:
    """Nothing is copied: a preset that is added or removed is seen at once."""
    mine = tmp_path / "medtool"
    shutil.copytree(checkout, mine)
    binaries = new_environment(tmp_path / "environment", outer)
    offline(*pip_into(binaries), "--editable", mine)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert_whole(binaries / "medtool", offline, elsewhere, files)
    copies = [path.name for path in site_packages(tmp_path / "environment").iterdir()]
    assert not [name for name in copies if name == "presets" or name.startswith("medtool_")]
    assert "medtool" not in copies
    task, name = shipped_presets(files)[0]
    preset = mine / "presets" / task / f"{name}.toml"
    preset.rename(preset.with_stem("renamed"))
    listed = offline(binaries / "medtool", "presets", task, "--json", folder=elsewhere)
    names = {preset["name"] for preset in json.loads(listed)["presets"]}
    assert "renamed" in names
    assert name not in names


def test_an_upgrade_leaves_no_preset_behind(
    checkout: Path, built: tuple[Path, Path], outer: Path, offline: Offline, tmp_path: Path
) -> None:
    """Nor does a folder ``presets`` beside the installed package count as shipped."""
    newer = tmp_path / "newer"
    shutil.copytree(checkout, newer)
    (newer / "presets" / "brainmet" / "laptop.toml").rename(
        newer / "presets" / "brainmet" / "portable.toml"
    )
    binaries = new_environment(tmp_path / "environment", outer)
    offline(*pip_into(binaries), built[0])
    beside = site_packages(tmp_path / "environment") / "presets" / "brainmet"
    beside.mkdir(parents=True)
    (beside / "stray.toml").write_text("", encoding="utf-8")
    offline(*pip_into(binaries), "--upgrade", "--force-reinstall", "--no-deps", newer)
    names = offline(binaries / "medtool", "presets", "brainmet", folder=tmp_path)
    assert "portable" in names
    assert "laptop" not in names
    assert "stray" not in names


def test_pipx(
    checkout: Path, outer: Path, offline: Offline, files: list[str], tmp_path: Path
) -> None:
    """As a user types it; its environment borrows the packages as those of the user's own site."""
    place = Path(sysconfig.get_path("purelib", "posix_user", {"userbase": str(tmp_path / "own")}))
    place.parent.mkdir(parents=True)
    place.symlink_to(outer, target_is_directory=True)
    offline(
        *(sys.executable, "-m", "pipx", "install", ".", "--system-site-packages"),
        *("--pip-args", "-c constraints.txt", "--python", sys.executable),
        folder=checkout,
        PYTHONUSERBASE=tmp_path / "own",
        PIPX_HOME=tmp_path / "pipx",
        PIPX_BIN_DIR=tmp_path / "bin",
        PIPX_MAN_DIR=tmp_path / "man",
    )

    def run(*words: str | Path, folder: Path | None = None) -> str:
        return offline(*words, folder=folder, PYTHONUSERBASE=tmp_path / "own")

    assert_whole(tmp_path / "bin" / "medtool", run, tmp_path, files)


@pytest.fixture
def wheelhouse(checkout: Path, run_offline: Offline, tmp_path: Path) -> Iterator[Path]:
    """What ``make wheelhouse`` collects, where the index is a folder; two gigabytes for a while."""
    index = tmp_path / "index"
    for found in outer_distributions():
        pack(found, index)
    folder = tmp_path / "wheelhouse"
    try:
        run_offline(
            *("make", "--silent", "wheelhouse", f"WHEELHOUSE={folder}"),
            *(f"BIN={Path(sys.executable).parent}", "--old-file=.venv/installed"),
            folder=checkout,
            PIP_FIND_LINKS=index,
        )
        shutil.rmtree(index)
        yield folder
    finally:
        shutil.rmtree(tmp_path)


PROJECT_FILE = """
[tasks.brainmet.data.preparation]
size_px = 96

[tasks.brainmet.model]
backbone = "test_resnet"
hidden_features = 8

[tasks.brainmet.model.weights]
repository = "someone/Backbones"
file = "tiny.safetensors"

[tasks.brainmet.train]
epochs = 1
stages = [{from_epoch = 0, rates = {head = 0.01}}]

[tasks.brainmet.metrics]
bootstrap_draws = 100
"""


def write_cohort_and_bundle(folder: Path) -> None:
    """A small synthetic cohort, and weights that came over a network on another machine."""
    import torch
    from medtool_brainmet.demo import DemoOptions, write_cohort
    from safetensors.torch import save_file

    from medtool.nets.backbones import create_backbone
    from medtool.verbs.fetch import FetchOptions, fetch

    write_cohort(folder, 0, DemoOptions(patients=20, size_px=64, slices=(6,), workers=0))
    (folder / "medtool.toml").write_text(PROJECT_FILE, encoding="utf-8")
    torch.manual_seed(1)
    file = folder / "tiny.safetensors"
    save_file(create_backbone("test_resnet", channels=3).state_dict(), file)
    kept = f"model.weights.folder={folder / 'another-machine'}"
    bundle = folder / "weights.bundle"
    fetch(FetchOptions("brainmet", assignments=(kept,), file=file, bundle=bundle, folder=folder))
    file.unlink()
    shutil.rmtree(folder / "another-machine")


@pytest.mark.slow
def test_a_wheelhouse_and_a_bundle_are_all_that_a_machine_without_network_needs(
    wheelhouse: Path, run_offline: Offline, tmp_path: Path
) -> None:
    """One full install; then fetched weights start a training, and its model answers."""
    environment = tmp_path / "environment"
    binaries = new_environment(environment)
    run_offline(*pip_into(binaries), "--no-compile", "--find-links", wheelhouse, "medtool")
    shutil.rmtree(wheelhouse)
    work = tmp_path / "work"
    write_cohort_and_bundle(work)

    def run(*words: str | Path) -> str:
        return run_offline(binaries / "medtool", *words, folder=work)

    assert "brainmet" in run("tasks")
    assert "curriculum" in run("presets")
    assert "torch" in run("doctor")
    assert "synthetic" in run("demo", "--help")
    assert "someone/Backbones" in run("fetch", "brainmet", "--bundle", "weights.bundle")
    run("train", "brainmet", "--run", "r", "--workers", "0")
    run("infer", "CTs", "--checkpoint", "runs/brainmet/r", "-o", "answers", "--workers", "0")
    run("evaluate", "answers", "--labels", "labels1.csv", "--seen", "report")
    run("doctor", "--checkpoint", "runs/brainmet/r")
    assert (work / "runs" / "brainmet" / "r" / "report.html").is_file()
    words = ("-c", "import medtool; print(medtool.__file__)")
    inside = run_offline(binaries / "python", *words, folder=work)
    assert inside.startswith(str(environment))
