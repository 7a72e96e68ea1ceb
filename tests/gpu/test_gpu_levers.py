"""On a real card: every lever value that needs one is applied, run and taken back; latents lie where the plan says.

Run with `pytest -m gpu`. What a package is missing for is refused in words, which is a test elsewhere.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import autotune
from autotune.errors import PlanError
from autotune.levers.text_encoders import TextEncoders
from autotune.records.plan import Plan
from benchmarks import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card"),
]

STREAMS = (
    "group:block+stream",
    "group:leaf+stream",
    "group:leaf+stream+record_stream",
    "group:leaf+stream+low_cpu_mem",
)
PLANS = (
    *(Plan(offload=offload) for offload in ("none", "model", "sequential", "group:block", "group:leaf", *STREAMS)),
    *(Plan(text_encoders=where, offload=offload) for where in ("leave", "cpu") for offload in ("none", "group:leaf")),
    Plan(channels_last=True, tf32=True),
    Plan(attention="xformers"),
    Plan(attention="backend:_native_flash", dtype="bfloat16"),
    Plan(compile="trace", offload="model"),
    Plan(compile="blocks"),
    Plan(batch_split=2, offload="group:block+stream"),
    Plan(feed_forward_chunks=2, offload="group:block+stream"),
)
FAMILIES = sorted(tiny.PIPELINES)


def weights(pipe: Any) -> dict[str, torch.Tensor]:
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.state_dict().items()}


def applied(pipe: Any, plan: Plan, family: str) -> bool:
    """Whether this pipeline, card and environment take the plan."""
    try:
        autotune.apply(pipe, plan, device="cuda", workload=tiny.CALLS[family])
    except PlanError:
        return False
    return True


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: str(plan.changes))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_runs_twice_and_is_taken_back(family: str, plan: Plan) -> None:
    pipe = tiny.PIPELINES[family]()
    before = {name: tensor.clone() for name, tensor in weights(pipe).items()}
    reference = tiny.generate(family, pipe)
    if not applied(pipe, plan, family):
        return
    assert pipe._execution_device.type == "cuda"
    first, second = (tiny.generate(family, pipe).cpu() for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-3)
    if plan.lane == "exact":
        torch.testing.assert_close(first, reference, rtol=0, atol=2e-2)
    autotune.restore(pipe)
    after = weights(pipe)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {tensor.device.type for tensor in after.values()} == {"cpu"}
    assert not any(tensor.is_pinned() for tensor in after.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pipeline_that_lies_on_the_card_goes_back_to_it(family: str) -> None:
    pipe = tiny.PIPELINES[family]().to("cuda")
    before = {name: tensor.clone() for name, tensor in weights(pipe).items()}
    for plan in (Plan(offload="sequential"), Plan(offload="group:leaf+stream"), Plan(dtype="float16", offload="model")):
        autotune.apply(pipe, plan, workload=tiny.CALLS[family])
        tiny.generate(family, pipe)
        autotune.restore(pipe)
        after = weights(pipe)
        assert {tensor.device.type for tensor in after.values()} == {"cuda"}
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_text_encoders_leave_the_card_before_the_denoiser_runs() -> None:
    pipe = autotune.apply(tiny.sd(), Plan(text_encoders="leave"), device="cuda", workload=tiny.CALLS["sd"])
    places: list[str] = []
    pipe.unet.conv_in.register_forward_hook(lambda *_: places.append(pipe.text_encoder.device.type))
    tiny.generate("sd", pipe)
    assert set(places) == {"cpu"}
    assert TextEncoders.name in pipe.__dict__["_autotune"].plan.changes


def test_a_pipeline_is_not_moved_off_its_card_by_hand() -> None:
    pipe = autotune.apply(tiny.sd(), Plan(offload="model"), device="cuda", workload=tiny.CALLS["sd"])
    with pytest.raises(PlanError, match=r"autotune\.restore"):
        pipe.to("cuda")
    tiny.generate("sd", pipe)
