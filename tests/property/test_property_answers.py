"""Answers to questions at random: what the lines say follows from the records, at any width, and nothing contradicts itself."""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune import explore
from autotune.errors import DoesNotFitError
from autotune.flow.ask import answer_from
from autotune.flow.question import Question
from autotune.records.front import Front
from autotune.records.plan import LANES, Plan
from autotune.records.precision import Precision
from autotune.report.explanation import Explanation
from autotune.report.lines import refusal_rows
from autotune.report.text import answer_lines, six_lines
from autotune.search.front import among, pareto, with_reasons
from autotune.search.space import Space
from autotune.units import Scale, duration, parse_bytes, size
from tests.unit.handmade import candidate, estimate

PLANNED = (
    ("sd15", "RTX 3060 12GB"), ("flux1-dev", "RTX 4070"), ("sdxl-base-1.0", "T4"), ("z-image-turbo", "RTX 4060 8GB"),
)  # fmt: skip
QUESTIONS = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def front_of(model: str, gpu: str) -> Front:
    """From the traces that ship."""
    with TemporaryDirectory() as folder:
        return explore(model, gpu=gpu, profiles=folder)


@st.composite
def questions(draw):
    model, gpu = draw(st.sampled_from(PLANNED))
    sizes = st.one_of(st.none(), st.floats(0.6, 40).map(lambda gb: f"{gb:.2f}GB"))
    return model, {
        "gpu": gpu,
        "max_vram": draw(sizes),
        "max_ram": draw(sizes),
        "quality": draw(st.sampled_from(LANES)),
        "objective": draw(st.sampled_from(["latency", "memory"])),
        "calls": draw(st.sampled_from([1, 20, 500])),
    }


@pytest.fixture(autouse=True)
def no_tracing(monkeypatch):
    """Which smaller call would fit takes a trace to say."""
    monkeypatch.setattr("autotune.flow.shrink.nearest_fit", lambda *_: None)


@QUESTIONS
@given(asked=questions(), width=st.integers(60, 160))
def test_an_answer_agrees_with_its_records_at_every_width(asked, width):
    model, options = asked
    front = front_of(model, options["gpu"])
    try:
        explained = answer_from(front, Question(front.model, **options))
    except DoesNotFitError as error:
        rows = refusal_rows(str(error), width)
        assert len(rows) <= 6
        assert max(map(len, rows)) <= width
        best = front.best(max_vram=error.smallest_bytes, quality=options["quality"])
        assert best is not None
        return
    assert any(explained.chosen == one for one in front.candidates)
    assert explained.fits
    agrees_with_its_records(explained)
    is_laid_out(explained, width)


ESTIMATES = st.builds(
    estimate,
    process_bytes=st.integers(10**7, 200 * 10**9),
    margin_bytes=st.integers(0, 10**9),
    host_ram_bytes=st.integers(0, 100 * 10**9),
    latency_s=st.floats(0.01, 5000),
    setup_s=st.sampled_from([0.0, 25.0]),
)


@QUESTIONS
@given(
    estimates=st.tuples(ESTIMATES, ESTIMATES),
    cap_bytes=st.integers(10**8, 100 * 10**9),
    beside=st.integers(-(10**6), 10**6),
    ram_cap_bytes=st.one_of(st.none(), st.integers(10**9, 64 * 10**9)),
    state=st.sampled_from(["as it is", "planned", "written out", "optimised"]),
    width=st.integers(60, 160),
)
def test_any_record_is_told_as_it_is(estimates, cap_bytes, beside, ram_cap_bytes, state, width):
    """Caps within a megabyte of what is needed too, and plans that do not fit."""
    front = front_of(*PLANNED[0])
    chosen, compared = (candidate(Plan(offload=o)) for o in ("model", "sequential"))
    chosen, compared = (
        one.model_copy(update={"estimate": own}) for one, own in zip((chosen, compared), estimates, strict=True)
    )
    cap_bytes = max(chosen.estimate.needed_bytes + beside, 10**6) if beside % 2 else cap_bytes
    explained = Explanation(
        state=state, model=front.model, workload=front.workload, device=front.device, cap_bytes=cap_bytes,
        ram_cap_bytes=ram_cap_bytes, chosen=chosen, compared=compared, advice=("one thing", "another 7 GB", "a third"),
        asked={"max_vram": "4GB", "quality": "exact", "keep": {"vae_tiling": 512}},
    )  # fmt: skip
    agrees_with_its_records(explained)
    is_laid_out(explained, width)


def agrees_with_its_records(explained):
    """The verdict on both budgets, and each figure, of the lines in full."""
    lines = {line.label: "".join(part.text for part in line.parts) for line in answer_lines(explained)}
    own, cap, ram_cap = explained.chosen.estimate, explained.cap_bytes, explained.ram_cap_bytes
    expect = lines["expect"]
    assert ("does not fit" in expect) is not explained.fits
    if own.needed_bytes <= cap:
        peak, unit, margin, cap_number, cap_unit = re.match(
            r"([\d.]+) ([GM]B) \+-([\d.]+) peak in \w+ \(cap ([\d.]+) ?([GM]B)?\)", expect
        ).groups()
        printed_cap = parse_bytes(f"{cap_number}{cap_unit or unit}")
        assert parse_bytes(f"{float(peak) + float(margin):.2f}{unit}") <= printed_cap
        scale = Scale.of(own.needed_bytes)  # both figures add up to this one
        assert (peak, unit) == (f"{own.process_bytes / scale.unit_bytes:.{scale.decimals}f}", scale.unit)
        assert printed_cap == parse_bytes(size(cap).replace(" ", ""))
    else:
        needed, there = re.match(r"does not fit: needs ([\d.]+ [GM]?B), the cap is ([\d.]+ [GMK]?B)", expect).groups()
        assert parse_bytes(needed) > parse_bytes(there)
    if own.host_ram_bytes >= 10**6 and (ram_cap is None or own.host_ram_bytes <= ram_cap):
        assert f", {size(own.host_ram_bytes)} RAM" in expect
    assert f", {duration(own.latency_s)}" in expect
    if "against" in lines:
        against = explained.compared
        assert ("does not fit" in lines["against"]) is not against.fits(cap, ram_cap)
        assert lines["against"].endswith(duration(against.estimate.latency_s))


def is_laid_out(explained, width):
    """Six lines, one row each at 100 columns and more, at most two below; no row too wide and no number cut."""
    hint = "why: -v   plain diffusers: --code"
    rows, whole = six_lines(explained, width, hint=hint), six_lines(explained, None, hint=hint)
    assert len(whole) <= 6
    assert max(map(len, rows)) <= width
    assert len(rows) <= (len(whole) if width >= 100 else 2 * len(whole))
    begins = [row for row in rows if not row.startswith(" ")]
    assert len(begins) == len(whole)
    assert "simulated" in begins[0]
    numbers = r"\d[\d.,x]*(?: (?:GB|MB|KB|s|ms|min|h|%)\b)?"
    full = {number for row in whole for number in re.findall(numbers, row)}
    assert {number for row in rows for number in re.findall(numbers, row)} <= full
    words = " ".join(whole).casefold()
    assert "front" not in words
    assert "lane" not in words


@settings(max_examples=100, deadline=None)
@given(
    figures=st.lists(
        st.tuples(st.integers(1, 20), st.integers(0, 9), st.floats(0.1, 300)).map(
            lambda three: {
                "process_bytes": three[0] * 5 * 10**8,
                "host_ram_bytes": three[1] * 10**9,
                "latency_s": three[2],
            }
        ),
        min_size=12,
        max_size=12,
    )
)
def test_each_reason_is_worked_out_from_the_figures(figures):
    precisions = None, Precision("fp16"), Precision("bf16, vae=fp32")
    values = {"dtype": precisions, "vae_tiling": (None, 512), "offload": (None, "sequential")}
    plans = [Plan(**dict(zip(values, chosen, strict=True))) for chosen in product(*values.values())]
    everyone = [candidate(plan, **own) for plan, own in zip(plans, figures, strict=True)]
    beside = among(everyone)
    for one in pareto(everyone):
        for lever, reason in with_reasons(one, beside(one), Space(values=values)).plan.reasons.items():
            for said in reason.split("; "):
                value, words = re.fullmatch(r"against ([^:]+): (.*)", said).groups()
                value = "None" if value == "what was found" else value
                other = next(
                    c for c in everyone if str(getattr(c.plan, lever)) == value
                    and c.plan.model_copy(update={lever: None}) == one.plan.model_copy(update={lever: None})
                )  # fmt: skip
                follows(words, one, other)


def follows(words, one, other):
    for figure, less, more, what in (
        ("needed_bytes", "less", "more", "VRAM"),
        ("host_ram_bytes", "less", "more", "RAM"),
    ):
        difference = getattr(one.estimate, figure) - getattr(other.estimate, figure)
        clause = f"{size(abs(difference))} {less if difference < 0 else more} {what}"
        assert (clause in words.split(", ")) is (difference != 0)
    seconds = one.estimate.latency_s - other.estimate.latency_s
    if "faster" in words or "slower" in words:
        assert f"{duration(abs(seconds))} {'faster' if seconds < 0 else 'slower'}" in words
    else:
        assert abs(seconds) <= max(0.05, 0.01 * other.estimate.latency_s)
    if words == "no difference, and simpler":
        assert len(one.plan.changes) < len(other.plan.changes)
