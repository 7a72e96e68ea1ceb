"""The harness that asks questions: its format, what it calls wrong, and which contradictions it sees."""

from __future__ import annotations

import json
import re
from copy import deepcopy

import pytest

from benchmarks.answers import __main__ as command
from benchmarks.answers.asking import WIDTHS, Answer, ask
from benchmarks.answers.contradictions import contradictions
from benchmarks.answers.judging import judged, lines_at_100
from benchmarks.answers.names import NAMES, Name, read_names, resolved
from benchmarks.answers.questions import QUESTIONS, BadQuestionsError, Question, read_questions
from benchmarks.answers.refusals import timed

WHY = "made up for a test of the harness"
ASKED = {"id": "a-question", "why": WHY, "ask": "plan sd15 --gpu 4060", "wanted": {"outcome": "plan"}}


def question(**changes):
    """The question with other fields; those of `wanted` by `wanted`."""
    return Question.model_validate({**ASKED, **changes})


@pytest.fixture(scope="module")
def answered():
    """A real answer: a tiny folder under a cap that it keeps."""
    asked = question(
        ask='explore MODEL --gpu "RTX 3060 12GB" --max-vram 1gb', made="tiny-sd", wanted={"outcome": "plan"}
    )
    return ask(asked)


@pytest.fixture
def answer(answered):
    """A copy of it, to be spoiled."""
    spoiled = Answer(**vars(answered))
    spoiled.document, spoiled.text = deepcopy(answered.document), dict(answered.text)
    return spoiled


# the format


def test_what_ships_keeps_to_the_format():
    questions = read_questions(QUESTIONS)
    assert len(questions) >= 60
    names = " ".join(one.id for one in questions)
    later = {19}  # two pipelines planned together
    assert {row for row in range(1, 21) if f"row-{row:02}" not in names} == later
    assert {f"show-{place}" for place in (1, 2, 4)} <= {one.id[:6] for one in questions}
    assert len(read_names(NAMES).cards) >= 85


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wanted": {"outcome": "plan", "needs_gb": [3, None]}}, "wanted.needs_gb"),
        ({"wanted": {"outcome": "plan", "needs_gb": [3]}}, "wanted.needs_gb"),
        ({"wanted": {"outcome": "plan", "seconds": [9, 3]}}, "wanted.seconds"),
        ({"wanted": {"outcome": "plan", "cap_gb": [-1, 3]}}, "wanted.cap_gb"),
        ({"wanted": {"outcome": "plan", "needs": [1, 3]}}, "wanted.needs"),
        ({"wanted": {"outcome": "fits"}}, "wanted.outcome"),
        ({"wanted": {"outcome": "plan", "says": [""]}}, "wanted.says"),
        ({"wanted": {"outcome": "plan", "against": {"ram_gb": "8"}}}, "wanted.against.ram_gb"),
        ({"why": "because"}, "why"),
        ({"id": "Not a name!"}, "'Not a name!': id"),
        ({"ask": "rm -rf /"}, "begins with a command"),
        ({"ask": "plan 'sd15"}, "cannot be split"),
        ({"ask": None}, "as a whole"),
        ({"ask": None, "api": {"function": "__import__"}}, "api.function"),
        ({"made": "tiny-sd"}, "MODEL"),
        ({"ask": "plan MODEL"}, "MODEL"),
        ({"more": 1}, "more"),
    ],
)
def test_a_wrong_question_is_named_with_its_field(tmp_path, changes, said):
    file = tmp_path / "questions.json"
    file.write_text(json.dumps({"questions": [{**ASKED, "id": "another"}, {**ASKED, **changes}]}))
    with pytest.raises(BadQuestionsError, match=re.escape(said)) as refused:
        read_questions(file)
    assert "'another'" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"questions": {}}', '{"questions": []}', "[" * 10**5, "\udcff"])
def test_what_is_no_file_of_questions(tmp_path, text):
    file = tmp_path / "questions.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadQuestionsError, match=re.escape(str(file))):
        read_questions(file)
    with pytest.raises(BadQuestionsError, match=re.escape(str(file))):
        read_names(file)


def test_one_id_twice(tmp_path):
    file = tmp_path / "questions.json"
    file.write_text(json.dumps({"questions": [ASKED, ASKED]}))
    with pytest.raises(BadQuestionsError, match="two of that id"):
        read_questions(file)


# judging


def test_right(answer):
    wanted = {
        "outcome": "plan", "needs_gb": [0.1, 1], "cap_gb": [0.99, 1.01], "seconds": [0, 100],
        "call": {"batch": 1}, "levers": {"offload": ["none", "model"]}, "not_levers": {"dtype": "int*"},
        "says": ["RTX 3060", ["no such words", "plan"]], "says_not": ["4090"], "front_has": {"offload": "*"},
    }  # fmt: skip
    wanted["lane"] = answer.document["best"]["plan"]["lane"]
    assert judged(question(wanted=wanted), answer) == []
    assert 4 <= lines_at_100(answer) <= 6


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"outcome": "does not fit"}, "wanted: does not fit; got: plan"),
        ({"outcome": "refused"}, "wanted: refused; got: plan"),
        ({"lane": "int4"}, "wanted: lane int4"),
        ({"needs_gb": [2, 3]}, "wanted: needs_gb in [2, 3]"),
        ({"ram_gb": [2, 3]}, "wanted: ram_gb in [2, 3]"),
        ({"live_gb": [2, 3]}, "wanted: live_gb in [2, 3]"),
        ({"peak_gb": [2, 3]}, "wanted: peak_gb in [2, 3]"),
        ({"seconds": [1000, 3000]}, "wanted: seconds in [1000, 3000]"),
        ({"step_s": [1000, 3000]}, "wanted: step_s in [1000, 3000]"),
        ({"measured_s": 3000}, "wanted: a bar that reaches 3000 s"),
        ({"cap_gb": [2, 3]}, "wanted: cap_gb in [2, 3]"),
        ({"levers": {"offload": "fast"}}, "wanted: offload=fast"),
        ({"not_levers": {"offload": "*"}}, "wanted: offload not *"),
        ({"call": {"steps": 3}}, "wanted: a call with steps=3"),
        ({"fits": False}, "wanted: fits=False; got: True"),
        ({"front_has": {"offload": "fast"}}, "wanted: a front with a plan of"),
        ({"says": ["4090"]}, "wanted: the answer says '4090'"),
        ({"says_not": ["rtx  3060"]}, "wanted: the answer does not say 'rtx  3060'"),
        ({"lines": 2}, "wanted: at most 2 rows at 100 columns"),
    ],
)
def test_wrong(answer, wanted, said):
    assert any(one.startswith(said) for one in judged(question(wanted={"outcome": "plan", **wanted}), answer))


def test_wrong_on_its_face(answer):
    usual = question()
    answer.text[WIDTHS[1]] = "x" * 81
    assert any("no row wider than 80" in one for one in judged(usual, answer))
    answer.document = None
    assert judged(usual, answer) == ["wanted: one JSON document with --json; got: none"]
    answer.error, answer.message, answer.code = "internal", "KeyError: 'x'", 1
    assert judged(usual, answer) == ["wanted: plan; got: a crash: KeyError: 'x'"]


def test_a_refusal_is_judged_by_its_class_code_and_words():
    refused = ask(question(ask="plan sd15 --gpu 4060 --max-vram 8"))
    wanted = {"outcome": "refused", "error": "BadSizeError", "says": ["8 GB?"]}
    assert judged(question(wanted=wanted), refused) == []
    assert judged(question(wanted={**wanted, "error": "PlanError", "says": ["9 GB"]}), refused)[1:]
    refused.code = 3
    assert judged(question(wanted=wanted), refused)[0].startswith("wanted: refused; got: does not fit")


def test_a_call_of_the_package():
    asked = question(ask=None, api={"function": "Plan", "arguments": {"offload": "cpu"}}, wanted={"outcome": "refused"})
    assert judged(asked, ask(asked)) == []
    asked = question(ask=None, api={"function": "plan", "model": "sd15", "arguments": {"gpu": "4060", "nonsense": 1}})
    assert judged(asked, ask(asked))[0].startswith("wanted: plan; got: a crash: TypeError")


# contradictions


def test_a_real_answer_does_not_deny_itself(answer):
    assert contradictions(answer) == []


def spoiled(explained, **changes):
    """The explanation with another estimate of its plan."""
    estimate = explained.chosen.estimate.model_copy(update=changes)
    return explained.model_copy(update={"chosen": explained.chosen.model_copy(update={"estimate": estimate})})


def test_a_plan_that_does_not_fit(answer):
    answer.explained = spoiled(answer.explained, margin_bytes=10**10)
    found = contradictions(answer)
    assert "a plan is proposed that does not fit" in found
    assert any("--json says needed_bytes" in one for one in found)


def test_a_plan_that_is_on_no_front(answer):
    kept = answer.explained.chosen
    others = tuple(row for row in answer.front.candidates if not row.plan.same_as(kept.plan))
    stranger = kept.model_copy(update={"plan": kept.plan.model_copy(update={"feed_forward_chunks": 64})})
    answer.front = answer.front.model_copy(update={"candidates": (*others, stranger)})
    assert any("is not on the front" in one for one in contradictions(answer))


def test_a_faster_plan_that_fits(answer):
    slow = [
        phase.model_copy(update={"compute_s": phase.compute_s + 9}) for phase in answer.explained.chosen.estimate.phases
    ]
    answer.explained = spoiled(answer.explained, phases=tuple(slow))
    assert any("fits as well and is" in one for one in contradictions(answer))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("expect   0.90 GB +-0.24 peak in decoding (cap 1.00), 61 s", "above the cap"),
        ("expect   900 MB +-240 peak in decoding (cap 1.00 GB), 61 s", "above the cap"),
        ("expect   0.50 GB +-0.10 peak (cap 1.00), 61.0 s = 2.0 + 28 x 1.9 + 40 (+-20 %)", "the parts make 95.2 s"),
        ("expect   does not fit: needs 0.50 GB, the cap is 1.00 GB", "the record says fits=True"),
    ],
)
def test_a_line_that_denies_its_figures(answer, line, said):
    rows = [row if not row.startswith("expect") else line for row in answer.text[WIDTHS[0]].splitlines()]
    answer.text[WIDTHS[0]] = "\n".join(rows)
    assert any(said in one for one in contradictions(answer))


@pytest.mark.parametrize(
    "line",
    [
        "expect   0.70 GB +-0.24 peak in decoding (cap 1.00), 61.2 s = 2.0 + 28 x 1.9 + 6.0 (+-20 %)",
        "expect   700 MB +-240 peak in decoding (cap 1.00 GB), 4 min 10 s = 2.0 + 50 x 4.8 + 8.0 (+-20 %)",
        "expect   0.76 GB +-0.24 peak in decoding (cap 1.00), 250 ms = 0.1 + 1 x 0.1 + 0.1",
    ],
)
def test_a_line_that_agrees(answer, line):
    rows = [row if not row.startswith("expect") else line for row in answer.text[WIDTHS[0]].splitlines()]
    answer.text[WIDTHS[0]] = "\n".join(rows)
    assert contradictions(answer) == []


@pytest.mark.parametrize(
    "said",
    [
        "max_vram='0.5GB' would take 10 ms (p3)",
        "with 8.0 GB of RAM it would take 10 ms",
        "a card with 1.0 GB would take 10 ms",
        "max_vram='9GB' would take 1 h 0 min (p1)",
        "keep={'vae_tiling': 512} would take 1 h 0 min (first call 20 s more)",
    ],
)
def test_advice_that_buys_nothing(answer, said):
    answer.explained = answer.explained.model_copy(update={"advice": (said,)})
    assert any(said in one for one in contradictions(answer))


def test_a_refusal_that_denies_itself():
    message = "max_vram=4.00 GB, but the smallest plan needs 3.00 GB. Try max_vram='3.0GB'"
    told = {"error": {"kind": "DoesNotFitError", "message": message, "smallest_bytes": 3 * 10**9}}
    answer = Answer(code=3, document=told, text={100: f"error: {message}"}, error="DoesNotFitError", message=message)
    found = contradictions(answer)
    assert any("the smallest plan needs 3.00 GB" in one for one in found)
    assert any("is advised, which is less" in one for one in found)


# names, refusals and the command


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ({"written": "RTX 3060", "outcome": "choice", "offers": ["8GB", "12GB"]}, "card", ""),
        ({"written": "RTX 3060", "outcome": "choice", "offers": ["9GB"]}, "card", "9GB named"),
        ({"written": "RTX 3060", "outcome": "card"}, "card", "wanted: card"),
        ({"written": "4060", "outcome": "card", "meant": "NVIDIA GeForce RTX 4060", "gib": 8}, "card", ""),
        ({"written": "4060", "outcome": "card", "gib": 16}, "card", "wanted: 16 GiB"),
        ({"written": "4060", "outcome": "card", "meant": "NVIDIA GeForce RTX 4090"}, "card", "RTX 4090; got: card"),
        ({"written": "M3 Max", "outcome": "sentence", "says": ["Apple"], "says_not": ["nearest"]}, "card", ""),
        ({"written": "M3 Max", "outcome": "sentence", "says_not": ["Apple"]}, "card", "wanted: no Apple"),
        ({"written": "sdxl", "outcome": "model", "meant": "sdxl-base-1.0"}, "model", ""),
        ({"written": "wan", "outcome": "choice", "offers": ["wan2.1-t2v-1.3b"]}, "model", ""),
        ({"written": "sdlx", "outcome": "model"}, "model", "got: sentence"),
    ],
)
def test_names(name, kind, said):
    found = resolved(Name.model_validate(name), kind=kind)
    assert said in found
    assert bool(found) == bool(said)


def test_a_refusal_is_timed_from_outside():
    refused = timed(["plan", "sd15", "--gpu", "4060", "--max-vram", "8"], repeats=1)
    assert refused.seconds > 0
    assert refused.torch is False


def run(monkeypatch, tmp_path, **changes):
    questions, names, out = (tmp_path / name for name in ("questions.json", "names.json", "out.json"))
    wanted = {"outcome": "refused", "timed": False, **changes}
    questions.write_text(json.dumps({"questions": [{**ASKED, "ask": "plan sd15 --gpu 9090", "wanted": wanted}]}))
    names.write_text(json.dumps({"cards": [{"written": "4060", "outcome": "card"}], "models": []}))
    words = ["answers", "--questions", str(questions), "--names", str(names), "--json", str(out)]
    monkeypatch.setattr("sys.argv", words)
    return command.main(), json.loads(out.read_text())


def test_all_right(monkeypatch, tmp_path, capsys):
    code, written = run(monkeypatch, tmp_path)
    assert code == 0
    assert written["figures"] == {
        "questions": 1, "answers_right": 1, "names_resolved": 1, "names_total": 1, "contradictions": 0, "lines_max":
        written["answers"][0]["lines"], "refusal_s_max": 0.0,
    }  # fmt: skip
    assert "answers_right" in capsys.readouterr().out


def test_one_wrong(monkeypatch, tmp_path, capsys):
    code, written = run(monkeypatch, tmp_path, says=["what it does not say"])
    assert code == 1
    assert written["figures"]["answers_right"] == 0
    assert "wanted: the answer says 'what it does not say'" in capsys.readouterr().out


def test_a_file_that_is_none(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", ["answers", "--questions", str(tmp_path / "none.json")])
    assert command.main() == 2
    assert "none.json" in capsys.readouterr().err
