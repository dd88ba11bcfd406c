"""What infer says of single studies on the screen."""

from __future__ import annotations

from contextlib import nullcontext

from medtool.verbs.infer_said import say_study, say_warnings

COLUMNS = ["probability", "decision", "threshold", "logit"]
ANSWER = {
    "case": "S1",
    "status": "ok",
    "code": "",
    "message": "",
    "probability": 0.02715,
    "decision": "negative",
    "threshold": 0.41635,
    "logit": -3.5,
}


class Heard:
    """A reporter that keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def progress(self, description: str, total: int | None):
        return nullcontext(lambda steps=1, note="": None)


def test_an_answer_among_few_is_read_from_the_screen() -> None:
    heard = Heard()
    say_study(ANSWER, COLUMNS, heard, many=False)
    assert heard.said == ["S1: probability 0.027, decision negative, threshold 0.416"]
    assert heard.warned == []


def test_a_warning_to_an_answer_is_said() -> None:
    heard = Heard()
    row = {**ANSWER, "code": "unlike-training", "message": "Unlike it."}
    say_study(row, COLUMNS, heard, many=False)
    assert heard.warned == ["S1: unlike-training: Unlike it."]


def test_a_refusal_is_said_among_many_too_and_pseudonyms_keep_their_message() -> None:
    heard = Heard()
    row = {"case": "S1", "status": "refused", "code": "no-brain", "message": ""}
    say_study(row, COLUMNS, heard, many=True)
    assert heard.warned == ["S1: refused, no-brain"]


def test_of_many_answers_the_warnings_are_counted() -> None:
    heard = Heard()
    rows = [{**ANSWER, "code": code} for code in ("a;b", "a", "")]
    for row in rows:
        say_study(row, COLUMNS, heard, many=True)
    assert heard.said == heard.warned == []
    say_warnings([*rows, {**ANSWER, "status": "refused", "code": "c"}], heard)
    assert heard.warned == ["2 answers carry warnings, in the table's column 'code': a 2, b 1."]


def test_nothing_is_said_when_there_is_nothing_to_warn_of() -> None:
    heard = Heard()
    say_warnings([ANSWER], heard)
    assert heard.warned == []
