"""timm imports beside any torchvision: with one that loads, and with one that does not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path


def run(code: str, *, before: Path | None = None) -> str:
    """Output of ``code`` in a fresh process, with ``before`` at the head of the import path."""
    path = f"import sys; sys.path.insert(0, {str(before)!r})\n" if before else ""
    # Warnings of a fresh process are errors too.
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", path + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_timm_lists_and_builds_models_here() -> None:
    out = run(
        """
        from medtool.nets.timm_models import timm
        timm.create_model("resnet10t", in_chans=1)
        print(len(timm.list_models()) > 1000)
        """
    )
    assert out == "True"


def fake_torchvision(folder: Path, body: str) -> None:
    package = folder / "torchvision"
    package.mkdir()
    (package / "half.py").write_text("")
    (package / "__init__.py").write_text(textwrap.dedent(body))


# What a torchvision whose extension does not load does: it registers for an operator that nobody
# declared, after it imported parts of itself.
UNLOADABLE = """
    import torch
    import torchvision.half
    torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
    torch.library.register_fake("torchvision::qnms")(lambda dets, scores, iou_threshold: dets)
    """

IMPORT_ONLY = """
    import importlib.util, sys, types
    import torch
    # The function alone: timm itself needs a whole torchvision.
    sys.modules["timm"] = types.ModuleType("timm")
    from medtool.nets import timm_models
    """


def test_missing_operators_are_declared(tmp_path: Path) -> None:
    fake_torchvision(tmp_path, UNLOADABLE)
    out = run(
        IMPORT_ONLY
        + """
    print(len(timm_models._declared), "torchvision" in sys.modules)
    try:
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except NotImplementedError:
        print("not implemented")
    """,
        before=tmp_path,
    )
    assert out.split("\n") == ["1 True", "not implemented"]


def test_a_torchvision_that_loads_is_left_alone(tmp_path: Path) -> None:
    fake_torchvision(tmp_path, "marker = object()")
    out = run(
        IMPORT_ONLY
        + """
    import torchvision
    first = torchvision.marker
    print(timm_models.import_torchvision(), len(timm_models._declared))
    import torchvision
    print(torchvision.marker is first, hasattr(torch.ops.torchvision, "nms"))
    """,
        before=tmp_path,
    )
    assert out.split("\n") == ["False 0", "True False"]


def test_another_error_of_torchvision_is_not_hidden(tmp_path: Path) -> None:
    fake_torchvision(tmp_path, 'raise RuntimeError("something else")')
    out = run(
        """
        try:
            import medtool.nets.timm_models
        except RuntimeError as error:
            print(error)
        """,
        before=tmp_path,
    )
    assert out == "something else"
