"""Pairs of lever values that do not go together, each with its reason. A test for each shows what happens without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from autotune.records.plan import PLAIN, Plan, group_offload

__all__ = ["RULES", "Rule", "conflict"]


class Rule(NamedTuple):
    """Two levers, the values of each that meet in the conflict, and why they do."""

    name: str
    one: str
    one_matches: Callable[[Any], bool]
    other: str
    other_matches: Callable[[Any], bool]
    reason: str

    def refuses(self, plan: Plan) -> bool:
        """Whether the plan has both."""
        return self.one_matches(getattr(plan, self.one)) and self.other_matches(getattr(plan, self.other))

    def words(self, plan: Plan) -> str:
        """What was asked and why it cannot be."""
        asked = f"{self.one}={getattr(plan, self.one)!r} with {self.other}={getattr(plan, self.other)!r}"
        return f"{asked} cannot be applied: {self.reason}"


def _weights_move_inside(offload: str | None) -> bool:
    """None is what no mode describes, such as hooks on single networks."""
    return offload in {None, "sequential"} or group_offload(offload) is not None


RULES: tuple[Rule, ...] = (
    Rule(
        "traced code cannot load weights",
        "compile",
        lambda value: value == "trace",
        "offload",
        _weights_move_inside,
        "a traced UNet is one piece without its layers' hooks: it keeps all the weights it was traced with, or runs without "
        "them; what works is offload='none' or 'model'",
    ),
    Rule(
        "compiled blocks break at hooks",
        "compile",
        lambda value: value == "blocks",
        "offload",
        _weights_move_inside,
        "each hook that loads weights inside a block breaks its graph, which makes it slower than uncompiled; "
        "what works is offload='none' or 'model'",
    ),
    Rule(
        "text encoders take their turn already",
        "text_encoders",
        lambda value: value in {"leave", "cpu"},
        "offload",
        lambda value: value in {"model", "sequential"},
        "this offload moves text encoders already, as a whole or layer by layer; "
        "what works is text_encoders='resident', or offload='none' or 'group:leaf'",
    ),
    Rule(
        "prefetching learns one order",
        "feed_forward_chunks",
        bool,
        "offload",
        lambda value: str(value).startswith("group:leaf+stream"),
        "prefetching learns in which order layers run, each once a call, and chunks run them several times; "
        "what works is offload='group:block+stream' or feed_forward_chunks=False",
    ),
)


def conflict(plan: Plan, found: Plan = PLAIN) -> Rule | None:
    """The first rule that the plan breaks over what is found; None where it breaks none.

    >>> conflict(Plan(compile="blocks", offload="sequential")).name
    'compiled blocks break at hooks'
    """
    whole = plan.over(found)
    return next((rule for rule in RULES if rule.refuses(whole)), None)
