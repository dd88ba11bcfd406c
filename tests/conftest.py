"""What all tests share: real scans where they are, the command in this or a fresh process."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# Before any test imports numpy or torch: two cores, many tests, and sums in one fixed order.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
# Golden texts and help pages are those of a screen without colour and 80 columns wide.
os.environ["NO_COLOR"] = "1"
os.environ["COLUMNS"] = "80"
os.environ.pop("FORCE_COLOR", None)
os.environ.pop("GITHUB_ACTIONS", None)

sys.path.insert(0, str(Path(__file__).parent / "support"))


class Outcome(NamedTuple):
    """What a command gave back."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans; skips where there is none."""
    folder = os.environ.get("MEDTOOL_TEST_DATA", "")
    if not folder:
        pytest.skip("MEDTOOL_TEST_DATA is not set: no real scans here")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"MEDTOOL_TEST_DATA points at {path}, which is no folder")
    return path


@pytest.fixture(scope="session")
def litert_python() -> Path:
    """The Python of an environment that has litert-torch; skips where none is named."""
    named = os.environ.get("MEDTOOL_TEST_LITERT", "")
    if not named:
        pytest.skip("MEDTOOL_TEST_LITERT is not set: no converter to LiteRT's files here")
    return Path(named)


@pytest.fixture
def medtool() -> Callable[..., Outcome]:
    """Run ``medtool WORDS...`` in this process: ``medtool("tasks", "--json", folder=tmp_path)``."""

    def run(*words: str | Path, folder: Path | None = None) -> Outcome:
        from medtool.cli.app import main

        out, err = io.StringIO(), io.StringIO()
        with contextlib.ExitStack() as stack:
            if folder is not None:
                stack.enter_context(contextlib.chdir(folder))
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            status = main([str(word) for word in words])
        return Outcome(status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def fresh_python() -> Callable[..., Outcome]:
    """Run ``python WORDS...`` in a fresh process, with some variables changed (None: removed)."""

    def run(
        *words: str | Path,
        folder: Path | None = None,
        environment: Mapping[str, str | None] | None = None,
        timeout_s: float = 300,
    ) -> Outcome:
        variables = dict(os.environ)
        for name, value in (environment or {}).items():
            if value is None:
                variables.pop(name, None)
            else:
                variables[name] = value
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def medtool_process(fresh_python: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Run ``medtool WORDS...`` in a fresh process."""

    def run(*words: str | Path, folder: Path | None = None, timeout_s: float = 300) -> Outcome:
        return fresh_python("-m", "medtool.cli.app", *words, folder=folder, timeout_s=timeout_s)

    return run


def _without_network() -> list[str]:
    """Words before a command that give it a network of its own, which is down; none elsewhere."""
    for words in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if shutil.which("unshare"):
            tried = subprocess.run([*words, "true"], capture_output=True, check=False)
            if tried.returncode == 0:
                return words
    return []


@pytest.fixture(scope="session")
def run_offline(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run any program without network, in a home of its own; gives what it printed, if it ended
    well.

    Nothing of this environment comes along but PATH: no settings of pip, no packages. Where the
    system has no networks to take away, proxies that nobody answers stand in.
    """
    home = tmp_path_factory.mktemp("home")
    before = _without_network()
    nobody = "http://127.0.0.1:9"
    surroundings = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INDEX": "1",
        **{name: nobody for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")},
    }

    def run(
        *words: str | Path,
        folder: Path | None = None,
        timeout_s: float = 600,
        **variables: str | Path,
    ) -> str:
        given = {name: str(value) for name, value in variables.items()}
        done = subprocess.run(
            [*before, *map(str, words)],
            cwd=folder,
            env={**surroundings, **given},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
