"""Records as JSON for programs: their fields, and the figures that are derived from them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from autotune.records.estimate import Estimate, Phase
    from autotune.records.front import Candidate, Front
    from autotune.records.plan import Plan
    from autotune.report.explanation import Explanation

__all__ = ["candidate_json", "code_for", "estimated_json", "explanation_json", "front_json", "print_json"]


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def code_for(explained: Explanation, *, card: str | None) -> str:
    """The chosen plan as plain code: for "cuda" where a card was named, which need not be one of this machine's."""
    return explained.chosen.plan.code(device=explained.device.torch_device if card is None else "cuda")


def explanation_json(explained: Explanation) -> dict[str, Any]:
    """The plan in its circumstances: what `plan --json` and `explain --json` print."""
    compared = explained.compared
    return {
        "state": explained.state,
        "model": explained.model,
        "workload": explained.workload.model_dump(mode="json"),
        "device": explained.device.model_dump(mode="json"),
        "host": None if explained.host is None else explained.host.model_dump(mode="json"),
        "cap_bytes": explained.cap_bytes,
        "cap_note": explained.cap_note,
        "fits": explained.fits,
        **candidate_json(explained.chosen),
        "runs": _plan_json(explained.runs),
        "compared": None if compared is None else candidate_json(compared),
        "advice": list(explained.advice),
        "answered_from": explained.answered_from,
    }


def estimated_json(explained: Explanation, smallest_cap_bytes: int) -> dict[str, Any]:
    """A plan that was written out: what `estimate --json` prints. `cap_bytes` is what the device has, or has free."""
    estimate = explained.chosen.estimate
    return {
        **explanation_json(explained),
        "context_bytes": estimate.process_bytes - estimate.reserved_bytes,
        "smallest_cap_bytes": smallest_cap_bytes,
    }


def front_json(front: Front) -> dict[str, Any]:
    """The front: one flat row a plan, and each plan's reasons and bytes by phase."""
    return {
        "model": front.model,
        "workload": front.workload.model_dump(mode="json"),
        "device": front.device.model_dump(mode="json"),
        "searched": front.searched,
        "front": front.rows(),
        "candidates": [candidate_json(candidate) for candidate in front.candidates],
        "usual": [candidate_json(candidate) for candidate in front.usual],
        "named": [candidate_json(candidate) for candidate in front.named],
        "caution": front.caution,
    }


def candidate_json(candidate: Candidate) -> dict[str, Any]:
    """A plan and its estimate."""
    return {"plan": _plan_json(candidate.plan), "estimate": _estimate_json(candidate.estimate)}


def _plan_json(plan: Plan) -> dict[str, Any]:
    return {**plan.model_dump(mode="json"), "lane": plan.lane}


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    return {
        **estimate.model_dump(mode="json"),
        "phases": [_phase_json(phase) for phase in estimate.phases],
        "needed_bytes": estimate.needed_bytes,
        "latency_s": estimate.latency_s,
        "transfer_s": estimate.transfer_s,
        "peak_phase": estimate.peak_phase.name,
    }


def _phase_json(phase: Phase) -> dict[str, Any]:
    return {
        **phase.model_dump(mode="json", exclude={"components"}),
        "components_bytes": phase.components,
        "latency_s": phase.latency_s,
    }
