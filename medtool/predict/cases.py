"""Predictions for many cases: workers read and prepare ahead while the network answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from medtool.core.clock import READING
from medtool.core.errors import MachineError, MedtoolError
from medtool.core.progress import Reporter, Silent
from medtool.core.records import Case, CaseStatus, Prediction, Prepared
from medtool.data.cache import Cache, read_prepared
from medtool.data.preparation import CaseDone, prepare_stream
from medtool.data.worker import unforeseen
from medtool.predict.model import Model
from medtool.predict.unlike import unlike_training

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.data.pool import WorkerPool


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
    pool: WorkerPool | None = None,
) -> Iterator[CaseOutcome]:
    """Outcomes in the order of ``cases``, one as soon as it is there.

    A case that cannot be read, prepared or predicted is an outcome, never the end; only what
    concerns the machine raises (MachineError). With
    ``keep_prepared`` False each file of the cache is removed once it was used, so that disk and
    memory stay flat over any number of cases. ``pool`` has the workers of a model of one
    preparation, where they were started before.
    """
    preparations = _preparations(model, cache)
    streams = [
        prepare_stream(
            own,
            cases,
            kept,
            workers=math.ceil(workers / len(preparations)),
            case_timeout_s=case_timeout_s,
            reporter=reporter or Silent(),
            stop=stop,
            pool=pool,
        )
        for own, kept in preparations.values()
    ]
    # Streams end together: each has every case, or stops when it is asked to.
    for several in zip(*streams, strict=False):
        missing = next((done for done in several if done.path is None), None)
        seconds = _seconds(several)
        if missing is not None:
            yield CaseOutcome(
                case=missing.case,
                status=missing.status,
                code=missing.code,
                message=missing.message,
                seconds=seconds,
            )
            continue
        paths = {key: done.path for key, done in zip(preparations, several, strict=True)}
        read = {key: read_prepared(path) for key, path in paths.items() if path is not None}
        yield _answer(model, several[0].case, read, cache, seconds)
        if not keep_prepared:
            for path in filter(None, paths.values()):
                path.unlink(missing_ok=True)


def _preparations(model: Model, cache: Cache) -> dict[str, tuple[Task, Cache]]:
    """Each way in which the model, or its members, want cases prepared: by the key of its cache."""
    if not model.members:
        return {cache.key: (model.task, cache)}
    own = ((member.task, Cache(cache.root, member.task)) for member in model.members)
    return {kept.key: (task, kept) for task, kept in own}


def _seconds(several: Sequence[CaseDone]) -> dict[str, float]:
    reading = sum(done.reading_s for done in several)
    return {READING: reading, "preparing": sum(done.seconds for done in several) - reading}


def _answer(
    model: Model,
    case: Case,
    read: Mapping[str, Prepared],
    cache: Cache,
    spent: Mapping[str, float],
) -> CaseOutcome:
    """The answer for a case; ``read`` has it in each preparation that is wanted."""
    started = time.perf_counter()
    prepared = next(iter(read.values()))
    try:
        if model.members:
            every = [read[Cache(cache.root, member.task).key] for member in model.members]
            prediction = model.task.predict_together(model, every, case)
        else:
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
