"""The steps of ``optimize``: export, calibrate, choose, write, judge, measure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.checkpoint import plain_json
from medtool.core.deployed import FLOAT_FILE, write_deployed
from medtool.core.errors import CheckpointError, GateError, InputError
from medtool.core.files import file_sha256
from medtool.data.run_folder import write_rows
from medtool.optimize.acceptance import (
    accepted,
    advice,
    refusal,
    require_accepted,
    require_answers,
    require_passes,
    tolerances_of,
)
from medtool.optimize.accuracy import (
    Accuracy,
    agreement_of,
    errors_of,
    metric_falls,
    other_metrics,
    scored,
)
from medtool.optimize.activations import observe
from medtool.optimize.calibration import Calibration, Inputs, calibration_of, drawn_cases
from medtool.optimize.case_table import CASES_FILE, case_rows
from medtool.optimize.export import on_processor
from medtool.optimize.folder import record_probe, whole_network, write_exported
from medtool.optimize.for_onnx_runtime import copy_for_onnx_runtime
from medtool.optimize.lighter import weights_in_float16, weights_in_int8
from medtool.optimize.litert import require_convertible, write_litert
from medtool.optimize.openvino_file import write_openvino
from medtool.optimize.passes import PassesBeside, has_passes, passes_beside
from medtool.optimize.processor import has_vnni
from medtool.optimize.quantisation_choice import (
    Judged,
    Quantised,
    Quantiser,
    choose_quantisation,
)
from medtool.optimize.quantise_onnx import ready_graph
from medtool.predict.answers import Answers, answers_of
from medtool.predict.deployed_model import engine_model
from medtool.predict.deployed_probe import EXACT
from medtool.predict.engines import open_engine
from medtool.predict.engines.contract import ONNX_RUNTIME, OPENVINO
from medtool.predict.engines.presence import engines_here
from medtool.score.falls import Fall, ScoredModel, unjudged_metrics
from medtool.verbs.optimize_measure import counted, measured, pytorch_engine

if TYPE_CHECKING:
    from medtool.config.optimize_section import OptimizeSection
    from medtool.core.progress import Reporter
    from medtool.core.records import Case
    from medtool.optimize.sensitivity import Cost
    from medtool.predict.model import Model
    from medtool.verbs.optimize_data import OptimizeData

INT8_FILE, OPENVINO_FILE = "model.int8.onnx", "model.int8.xml"
# Inputs on which the export is compared with PyTorch, and cases that give them where nothing is
# calibrated.
CHECKED_INPUTS, CHECKED_CASES = 8, 4
NOT_JUDGED = "Not judged: {0}, which is undefined on the {1}; the files are judged by the rest."
# A difference of times below this may be chance.
CLEARLY = 0.9
FOUND_ON = "ONNX files in eight bits that are not kept"
FLOAT16_FILE, WEIGHTS8_FILE = "model.float16.onnx", "model.weights8.onnx"


@dataclass(frozen=True)
class Before:
    """The model that is made smaller, its answers to some cases, and their scores."""

    answers: Answers
    scored: ScoredModel


@dataclass
class Making:
    """One model on its way: ``stage`` becomes the output, ``scratch`` is lost.

    ``original`` is what it is compared with, ``model`` what is exported: the same, unless it was
    pruned. ``named`` are the formats that were asked for by name, and not by the preset.
    """

    original: Model
    model: Model
    data: OptimizeData
    settings: OptimizeSection
    stage: Path
    scratch: Path
    reporter: Reporter
    seed: int = 0
    named: Collection[str] = ()
    document: dict[str, Any] = field(default_factory=dict)
    _quantiser: Quantiser | None = None
    _quantised: Quantised | None = None
    _befores: dict[str, Before] = field(default_factory=dict)
    # What pruning alone cost, by part: falls of the float file.
    _pruned_falls: dict[str, tuple[Fall, ...]] = field(default_factory=dict)
    # What passes are compared with, by part.
    _by_pytorch: dict[str, Answers] = field(default_factory=dict)
    _folders: int = 0

    def export(self) -> None:
        """Write the float file, the document and the card."""
        self.reporter.say("Exporting the network to ONNX.")
        self.document = write_exported(self.model, self.stage)

    def calibrate(self) -> Calibration:
        """Record what training cases show the network."""
        data, settings = self.data, self.settings
        count = min(settings.calibration_cases, len(data.calibration))
        with self.reporter.progress("Calibration cases", count) as advance:
            found = calibration_of(
                self.model,
                open_engine(self.stage / FLOAT_FILE),
                data.calibration,
                data.cache,
                inputs=settings.calibration_inputs,
                most_cases=settings.calibration_cases,
                seed=self.seed,
                advance=advance,
            )
        self.reporter.say(f"Calibrated on {len(found.inputs)} inputs of {found.patients} patients.")
        return found

    def check_export(self, calibration: Calibration | None) -> None:
        """Compare the float file with PyTorch on inputs of real cases, calibration's or others.

        Raises CheckpointError where it gives no numbers.
        """
        inputs = self._recorded() if calibration is None else calibration.inputs
        if not inputs:
            # Then no case has an answer either, which the gate refuses.
            self.reporter.warn("No case gave an input to compare the exported file on.")
            return
        found = self._export_difference(inputs[:CHECKED_INPUTS])
        if not isfinite(found["largest"]):
            raise CheckpointError(
                "The exported network gives values that are no numbers.",
                met="NaN or infinity on inputs of real cases",
                wanted="finite outputs",
                how="medtool doctor --checkpoint C says whether the checkpoint works here.",
            )
        self.reporter.say(
            f"On {found['inputs']} inputs of real cases the exported file differs from PyTorch by "
            f"at most {found['largest']:.2g} (of {found['range']:.3g})."
        )
        self.document["export"] = found

    def _recorded(self) -> Sequence[Inputs]:
        """Some inputs of cases, where nothing was calibrated."""
        cases = (self.data.calibration or self.data.judging)[:CHECKED_CASES]
        with self.reporter.progress("Inputs of cases", len(cases)) as advance:
            try:
                return calibration_of(
                    self.model,
                    open_engine(self.stage / FLOAT_FILE),
                    cases,
                    self.data.cache,
                    inputs=CHECKED_INPUTS,
                    most_cases=CHECKED_CASES,
                    seed=self.seed,
                    advance=advance,
                ).inputs
            except InputError:
                return ()

    def _export_difference(self, inputs: Sequence[Inputs]) -> dict[str, float]:
        """The largest difference of any output, and the range of that output."""
        torch_engine = pytorch_engine(self.model)
        engine = open_engine(self.stage / FLOAT_FILE)
        apart: dict[str, float] = {}
        lowest: dict[str, float] = {}
        highest: dict[str, float] = {}
        for one in inputs:
            wanted, found = torch_engine.run(one), engine.run(one)
            for name, truth in wanted.items():
                difference = float(np.abs(truth - found[name]).max())
                # max() passes over what is no number.
                difference = difference if isfinite(difference) else inf
                apart[name] = max(apart.get(name, 0.0), difference)
                lowest[name] = min(lowest.get(name, inf), float(truth.min()))
                highest[name] = max(highest.get(name, -inf), float(truth.max()))
        worst = max(apart, key=lambda name: apart[name])
        return {
            "inputs": len(inputs),
            "largest": apart[worst],
            "range": highest[worst] - lowest[worst],
        }

    def quantise(self, calibration: Calibration) -> Quantised:
        """Choose how, on the selection part, and write the file."""
        self._quantiser = self._quantiser_of(calibration, self.settings)
        self._quantised = chosen = choose_quantisation(self._quantiser, self.reporter)
        copy_for_onnx_runtime(chosen.trial.file, self.stage / INT8_FILE)
        floats = ", ".join(chosen.floats) or "none"
        self.reporter.say(f"INT8 by {chosen.trial.method}; layers left in float: {floats}.")
        self.document["quantisation"] = {**chosen.as_dict(), "calibration": calibration.as_dict()}
        self._add(INT8_FILE, ONNX_RUNTIME, "int8")
        return chosen

    def sensitive(self, calibration: Calibration) -> Quantised:
        """Layers that LiteRT's file alone leaves in float, found on files that are not kept.

        Its quantiser takes ranges from the smallest to the largest value, and so do they. Where
        they lose too much even so, LiteRT's own file says whether it does. Raises UsageError and
        CheckpointError where the network cannot be LiteRT's, before anything is tried.
        """
        task, network = whole_network(self.model)
        require_convertible(task, on_processor(network), calibration.inputs[0])
        settings = self.settings.model_copy(update={"methods": ["minmax"]})
        self._quantiser = quantiser = self._quantiser_of(calibration, settings)
        try:
            chosen = choose_quantisation(quantiser, self.reporter)
        except GateError as error:
            chosen = quantiser.chosen(quantiser.trials[-1])
            self.reporter.warn(
                f"In eight bits an ONNX file is worse than allowed, {error.where} ({error.met}): "
                "LiteRT's own is made with as many layers in float, and judged."
            )
        self._quantised = chosen
        floats = ", ".join(chosen.floats) or "none"
        self.reporter.say(f"For LiteRT, found on {FOUND_ON}; layers left in float: {floats}.")
        self.document["quantisation"] = {
            **chosen.as_dict(),
            "activations": "int8, asymmetric, a scale a tensor",
            "found_on": FOUND_ON,
            "calibration": calibration.as_dict(),
        }
        return chosen

    def _quantiser_of(self, calibration: Calibration, settings: OptimizeSection) -> Quantiser:
        graph = ready_graph(self.stage / FLOAT_FILE, self.scratch)
        return Quantiser(
            graph=graph,
            seen=observe(graph, calibration.inputs, reporter=self.reporter),
            inputs=calibration.inputs,
            settings=settings,
            reduce_range=self._reduce_range(),
            folder=self.scratch,
            judge=self._chosen_by,
            pruned=self._pruned_falls.get("choosing", ()),
        )

    def _reduce_range(self) -> bool:
        asked = self.settings.reduce_range
        return asked == "always" or (asked == "auto" and not has_vnni())

    def openvino(self, source: Path) -> None:
        """The file for OpenVINO of the chosen trial ``source``, where OpenVINO is installed.

        Raises CheckpointError where OpenVINO cannot compute it, if it was asked for by name.
        """
        if not any(one.name == OPENVINO and one.installed for one in engines_here()):
            self.reporter.say("OpenVINO is not installed: no file for it.")
            return
        try:
            write_openvino(source, self.stage / OPENVINO_FILE)
        except CheckpointError as error:
            if OPENVINO in self.named:
                raise
            self.reporter.warn(f"No file for OpenVINO. {error.what} ({error.met})")
            return
        self._add(OPENVINO_FILE, OPENVINO, "int8")

    def litert(self, calibration: Calibration, floats: Sequence[str], python: Path | None) -> None:
        """Files for LiteRT, in float32 and in eight bits, with the same layers in float."""
        task, network = whole_network(self.model)
        made = write_litert(
            task,
            on_processor(network),
            self.stage,
            calibration.inputs,
            python=python,
            float_layers=floats,
            reporter=self.reporter,
        )
        self.document["files"] |= made

    def lighter(self) -> None:
        """Files that are smaller only, as far as they are asked for."""
        source = self.stage / FLOAT_FILE
        if "float16" in self.settings.formats:
            weights_in_float16(source, self.stage / FLOAT16_FILE)
            self._add(FLOAT16_FILE, ONNX_RUNTIME, "float16 weights")
        if "weights8" in self.settings.formats:
            weights_in_int8(source, self.stage / WEIGHTS8_FILE)
            self._add(WEIGHTS8_FILE, ONNX_RUNTIME, "int8 weights")

    def _add(self, name: str, engine: str, arithmetic: str) -> None:
        """The entry of a file in optimize.json."""
        file = self.stage / name
        beside = [file.with_suffix(".bin"), file.with_name(name + ".data")]
        external = {one.name: file_sha256(one) for one in beside if one.is_file()}
        first = self.document["files"][FLOAT_FILE]
        self.document["files"][name] = {
            **first,
            "engine": engine,
            "arithmetic": arithmetic,
            "sha256": file_sha256(file),
            "bytes": sum((self.stage / one).stat().st_size for one in (name, *external)),
            "external": external,
        }

    # --- judging ------------------------------------------------------------------------------
    def _answered(self, model: Model, cases: Sequence[Case], what: str) -> Answers:
        self._folders += 1
        folder = self.scratch / f"answers-{self._folders}"
        with self.reporter.progress(what, len(cases)) as advance:
            return answers_of(model, cases, self.data.cache, folder, advance)

    def _before(self, part: str, cases: Sequence[Case]) -> Before:
        """What the model said, and how good that was, before anything was done to it."""
        if part not in self._befores:
            answers = self._answered(self.original, cases, "Answers before")
            if answers.note:
                self.reporter.warn(answers.note)
            self._befores[part] = Before(answers, scored(answers))
        return self._befores[part]

    def _falls(self, before: Before, after: Answers) -> tuple[Fall, ...]:
        """How far each metric fell; where a case lost its answer nothing can be said of them."""
        lost = bool(_silent(before, after))
        metrics = self.model.task.settings.metrics
        found = metric_falls(
            before.scored,
            before.scored if lost else scored(after),
            tolerances_of(self.settings),
            primary=metrics.primary,
            metrics=metrics,
            seed=self.seed,
        )
        return tuple(replace(one, after=nan) if lost else one for one in found)

    def _chosen_by(self, file: Path) -> Judged:
        """A trial on the selection part; nothing is said where there is nobody to ask."""
        cases = self.choosing
        if not cases:
            return Judged()
        before = self._before("choosing", cases)
        after = self._answered(self._by(file), cases, "Selection part")
        judged = Judged(self._falls(before, after), self._passes("choosing", before, after))
        shutil.rmtree(after.folder, ignore_errors=True)
        return judged

    def _passes(self, part: str, before: Before, after: Answers) -> PassesBeside | None:
        """Monte Carlo passes beside those of the same network by PyTorch; None of a model without.

        A network that was pruned drops other features than the whole one: it is its own measure.
        """
        if not has_passes(self.model):
            return None
        cases = drawn_cases(before.answers.cases, self.seed)[: self.settings.passes_cases]
        if self.model is self.original:
            return passes_beside(before.answers, after, cases, self.settings)
        if part not in self._by_pytorch:
            self._by_pytorch[part] = self._answered(self.model, cases, "Passes by PyTorch")
        wanted = self._by_pytorch[part]
        return passes_beside(wanted, after, wanted.cases, self.settings)

    @property
    def choosing(self) -> list[Case]:
        """Cases on which ways are compared, of every class: a cohort may be sorted by it."""
        return drawn_cases(self.data.choosing, self.seed)[: self.settings.choice_cases]

    def _by(self, file: Path) -> Model:
        return engine_model(self.model, open_engine(file))

    def judge_pruned(self) -> None:
        """The pruned network on the selection part, in float: what it lost is not for INT8 to mend.

        Raises GateError where that is more than allowed; does nothing where nothing was pruned.
        """
        cases = self.choosing
        if self.model is self.original or not cases:
            return
        before = self._before("choosing", cases)
        after = self._answered(self._by(self.stage / FLOAT_FILE), cases, "Selection part")
        part, how = "selection part", advice(EXACT, pruned=True)
        silent = _silent(before, after)
        require_answers(silent, len(before.answers.cases), part=part, file=FLOAT_FILE, how=how)
        falls = self._pruned_falls["choosing"] = self._falls(before, after)
        for fall in falls:
            self.reporter.say(f"Pruned, {part}: {fall.line()}.")
        failed = [one for one in falls if not one.kept]
        if failed:
            raise refusal(failed, (), part, file=FLOAT_FILE, how=how)
        shutil.rmtree(after.folder, ignore_errors=True)

    def judge(self) -> None:
        """Every file on the part that judges. Raises GateError where one is worse than allowed."""
        cases = self.data.judging
        before = self._before("judging", cases)
        accuracies: dict[str, Any] = {}
        rows: list[dict[str, Any]] = []
        for name in self.document["files"]:
            after = self._answered(self._by(self.stage / name), cases, f"Answers of {name}")
            found = self._accuracy(before, after, self._passes("judging", before, after))
            self._require_as_good(name, found, len(before.answers.cases))
            own = case_rows(name, before.answers, after, found, first_row=len(rows) + 1)
            accuracies[name] = found.as_dict({row["case"]: row["row"] for row in own})
            rows += own
            shutil.rmtree(after.folder, ignore_errors=True)
        unjudged = unjudged_metrics(self.model.task.settings.metrics.primary, before.scored.scores)
        if unjudged:
            self.reporter.warn(NOT_JUDGED.format(", ".join(unjudged), self.data.judged))
        write_rows(self.stage / CASES_FILE, rows)
        self.document["accuracy"] = {
            "table": CASES_FILE,
            "part": self.data.judged,
            "optimistic": self.data.optimistic,
            "cases": len(before.answers.cases),
            "judged_by": self.settings.judged_by,
            "not_judged": list(unjudged),
            "files": accuracies,
        }

    def _require_as_good(self, name: str, found: Accuracy, answered: int) -> None:
        arithmetic = str(self.document["files"][name]["arithmetic"])
        pruned = self.model is not self.original
        part, how = self.data.judged, advice(arithmetic, pruned=pruned)
        require_answers(found.silent, answered, part=part, file=name, how=how)
        for fall in found.falls:
            self.reporter.say(f"{name}: {fall.line()}.")
        if found.passes is not None:
            self.reporter.say(f"{name}: {found.passes.line()}.")
        held = all(accepted(one, self.settings) for one in found.falls)
        held = held and (found.passes is None or found.passes.kept)
        costs = self._layer_costs() if arithmetic == "int8" and not held else []
        require_accepted(
            found.falls,
            self.settings,
            costs=costs,
            part=part,
            file=name,
            how=how,
            pruned=self._pruned_falls.get("judging", ()),
        )
        require_passes(found.passes, costs=costs, part=part, file=name, how=how)
        if pruned and name == FLOAT_FILE:
            # It comes first: what others lose beyond it is not pruning's.
            self._pruned_falls["judging"] = found.falls

    def _layer_costs(self) -> list[Cost]:
        """What the layers in eight bits cost each by itself, the dearest first.

        The choice of layers knows it only where the selection part asked for one.
        """
        if self._quantiser is None or self._quantised is None:
            return []
        chosen = self._quantised
        if chosen.costs:
            return [one for one in chosen.costs if one.layer.name not in chosen.floats]
        layers = [layer for layer in chosen.layers if layer.name not in chosen.floats]
        return self._quantiser.costs(chosen.trial.method, layers, self.reporter)

    def _accuracy(self, before: Before, after: Answers, passes: PassesBeside | None) -> Accuracy:
        silent, falls = _silent(before, after), self._falls(before, after)
        compared = None if silent else scored(after)
        judged = {one.metric for one in falls}
        return Accuracy(
            part=self.data.judged,
            optimistic=self.data.optimistic,
            falls=falls,
            errors=errors_of(before.scored, compared) if compared else {},
            agreement=tuple(agreement_of(before.answers, after)),
            silent=silent,
            others=other_metrics(before.scored, compared, judged) if compared else {},
            passes=passes,
        )

    # --- measuring ----------------------------------------------------------------------------
    def measure(self) -> None:
        """Time and memory of PyTorch and of every file, parameters and multiply-adds."""
        self.document |= counted(self.original, self.model, self.stage, self.reporter)
        if self.settings.measure_runs:
            self.document |= measured(
                self.original, self.stage, self.document["files"], self.settings, self.reporter
            )

    def write(self) -> Mapping[str, Any]:
        """optimize.json, with everything that is known by now."""
        self.document["default"] = self._default()
        # What is not finite has no place in JSON: it becomes null.
        plain = json.loads(plain_json(self.document))
        self.document = write_deployed(self.stage, plain)
        for name, entry in self.document["files"].items():
            if entry["arithmetic"] != EXACT:
                self.document = record_probe(self.stage, name)
        return self.document

    def _default(self) -> str:
        """The file that answers where nobody chose: eight bits, unless float was measured faster.

        OpenVINO's is none: it is not installed everywhere.
        """
        if INT8_FILE not in self.document["files"]:
            return FLOAT_FILE
        times = {
            row["file"]: float(row["median_ms"])
            for row in reversed(self.document.get("latency", []))
            if "median_ms" in row
        }
        if times.get(FLOAT_FILE, inf) < CLEARLY * times.get(INT8_FILE, 0.0):
            self.reporter.say("Eight bits are no faster on this machine: the default is float.")
            return FLOAT_FILE
        return INT8_FILE


def _silent(before: Before, after: Answers) -> dict[str, str]:
    """Cases that had an answer before and have none after, each with why."""
    answered = {case.case_id for case in before.answers.cases}
    return {case: why for case, why in after.failed.items() if case in answered}
