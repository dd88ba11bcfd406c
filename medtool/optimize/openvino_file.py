"""The same eight-bit model in OpenVINO's own files: they open faster, and need no ONNX reader.

OpenVINO runs ONNX Runtime's QDQ files as fast as files of its own quantiser (NNCF): one
calibration and one choice of layers serve both engines.
"""

from __future__ import annotations

from pathlib import Path

# How to go on without such a file.
LEFT_OUT = "name the files that are wanted with --format, without openvino."


def write_openvino(source: Path, target: Path) -> Path:
    """Write the ONNX file ``source`` as ``target`` (.xml); gives the file of its weights beside it.

    Weights keep their bits. Raises CheckpointError where OpenVINO lacks an operator; then nothing
    is left.
    """
    from medtool.core.errors import CheckpointError
    from medtool.predict.engines import open_engine
    from medtool.predict.engines.contract import OPENVINO
    from medtool.predict.engines.openvino_import import openvino, openvino_core
    from medtool.predict.engines.refusals import cannot_run, lacking_operator

    try:
        model = openvino_core().read_model(source)
    except RuntimeError as error:
        text = str(error)
        raise lacking_operator(source, OPENVINO, text, how=LEFT_OUT) or cannot_run(
            source, OPENVINO, text
        ) from error
    weights = target.with_suffix(".bin")
    openvino().save_model(model, target, compress_to_fp16=False)
    try:
        # What it can read it need not be able to compute.
        open_engine(target)
    except CheckpointError as error:
        for file in (target, weights):
            file.unlink(missing_ok=True)
        error.how = LEFT_OUT
        raise
    return weights
