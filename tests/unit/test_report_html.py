"""Records in a notebook: small tables that never leave their cell, with everything from outside escaped."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from autotune.records.plan import Plan
from autotune.report.explanation import Explanation
from tests.unit.handmade import CARD, candidate, front

HOSTILE = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags that are open, and those that were ever seen."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def explanation():
    one, other = candidate(Plan(dtype="float16", id="p1")), candidate(Plan())
    return Explanation(
        state="planned", model=HOSTILE, workload=front(one).workload, device=CARD, cap_bytes=2 * 10**9,
        chosen=one, compared=other, advice=(HOSTILE,), notes=(HOSTILE,), asked={"max_vram": HOSTILE},
    )  # fmt: skip


RECORDS = {
    "plan": lambda: Plan(dtype="float16", offload="model", reasons={"dtype": HOSTILE}),
    "plan without changes": Plan,
    "front": lambda: front(candidate(Plan(dtype="float16")), model=HOSTILE),
    "explanation": explanation,
    "device": lambda: CARD.model_copy(update={"name": HOSTILE, "notes": (HOSTILE,)}),
}


@pytest.mark.parametrize("name", RECORDS)
def test_html_is_whole_escaped_and_fits_its_cell(name):
    html = RECORDS[name]()._repr_html_()
    page = Page(html)
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.seen}
    for tag, attributes in page.seen:
        assert not {"width", "nowrap"} & attributes.keys()
        if tag in {"table", "pre"}:
            assert "overflow-wrap" in attributes["style"]
            assert "max-width:100%" in attributes["style"]
        assert "nowrap" not in attributes.get("style", "")


def test_an_explanation_begins_with_the_six_lines():
    html = explanation()._repr_html_()
    assert html.index("expect") < html.index("Phases, simulated")
