"""Predictions for many cases: workers read and prepare ahead while the network answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from medtool.core.clock import READING
from medtool.core.errors import MachineError, MedtoolError
from medtool.core.progress import Reporter, Silent
from medtool.core.records import Case, CaseStatus, Prediction, Prepared
from medtool.data.cache import Cache, read_prepared
from medtool.data.preparation import CaseDone, prepare_stream
from medtool.data.worker import unforeseen
from medtool.predict.model import Model
from medtool.predict.unlike import unlike_training


@dataclass(frozen=True)
class CaseOutcome:
    """What became of one case; ``prediction`` and ``prepared`` are there when it is ok.

    ``seconds`` are those of its steps, in whichever process: reading, preparing, network.
    """

    case: Case
    status: CaseStatus
    code: str = ""
    message: str = ""
    prediction: Prediction | None = None
    prepared: Prepared | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


def predict_cases(
    model: Model,
    cases: Sequence[Case],
    *,
    cache: Cache,
    workers: int = 0,
    case_timeout_s: float = 600.0,
    reporter: Reporter | None = None,
    keep_prepared: bool = True,
    stop: Callable[[], bool] | None = None,
) -> Iterator[CaseOutcome]:
    """Outcomes in the order of ``cases``, one as soon as it is there.

    A case that cannot be read, prepared or predicted is an outcome, never the end; only what
    concerns the machine raises (MachineError). With
    ``keep_prepared`` False each file of the cache is removed once it was used, so that disk and
    memory stay flat over any number of cases.
    """
    stream = prepare_stream(
        model.task,
        cases,
        cache,
        workers=workers,
        case_timeout_s=case_timeout_s,
        reporter=reporter or Silent(),
        stop=stop,
    )
    for done in stream:
        if done.path is None:
            yield CaseOutcome(
                case=done.case,
                status=done.status,
                code=done.code,
                message=done.message,
                seconds=_seconds(done),
            )
            continue
        yield _answer(model, done.case, read_prepared(done.path), _seconds(done))
        if not keep_prepared:
            done.path.unlink(missing_ok=True)


def _seconds(done: CaseDone) -> dict[str, float]:
    return {READING: done.reading_s, "preparing": done.seconds - done.reading_s}


def _answer(
    model: Model, case: Case, prepared: Prepared, spent: Mapping[str, float]
) -> CaseOutcome:
    started = time.perf_counter()
    try:
        prediction = model.task.predict(model, prepared, case)
    except MachineError:
        raise
    except Exception as error:  # noqa: BLE001 - one case must not end the others
        code, message = unforeseen(error)
        if isinstance(error, MedtoolError):
            code, message = getattr(error, "code", "prediction"), error.what
        return CaseOutcome(
            case=case,
            status="failed",
            code=code,
            message=message,
            seconds={**spent, "network": time.perf_counter() - started},
        )
    unlike = unlike_training(model.document.get("training_range", {}), case, prepared)
    return CaseOutcome(
        case=case,
        status="ok",
        prediction=replace(prediction, findings=(*prediction.findings, *unlike)),
        prepared=prepared,
        seconds={**spent, "network": time.perf_counter() - started},
    )
