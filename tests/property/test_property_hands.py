"""Whatever is done with a pipeline, and in whatever order: it is right, or under a stated plan, and goes back to the bit.

Beside it stands a pipeline that is never optimised and is changed by its owner in the same way.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
from typing import Any
from weakref import ref

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import autotune
from autotune.errors import AutotuneError
from autotune.guard.applying import optimized_of
from autotune.records.plan import Plan
from benchmarks.faults.inject import ERRORS, AtChange, AtUndo, Injector
from benchmarks.faults.seen import weights_of
from tests.contract.families import build, run

pytestmark = pytest.mark.filterwarnings("ignore")

PLANS = (
    Plan(),
    Plan(dtype="bf16", vae_slicing=True, channels_last=True),
    Plan(attention="vanilla", feed_forward_chunks=2, offload="model"),
    Plan(offload="sequential", vae_tiling=16),
    Plan(offload="group:leaf", text_encoders="leave", attention="sliced:max"),
    Plan(batch_split=2, text_encoders="cpu", compile="blocks"),
)
CALL = {"prompt": "a cat", "height": 32, "width": 32, "num_images_per_prompt": 2}
_MOST_CHANGES = 400  # points of the longest of these plans, about


class Hands(RuleBasedStateMachine):
    """A pipeline in its owner's hands."""

    @initialize()
    def load(self) -> None:
        self.pipe, self.plain = build("sd"), build("sd")
        for pipe in (self.pipe, self.plain):
            run("sd", pipe)
        self.marks = 0

    def both(self, change: Any) -> None:
        for pipe in (self.pipe, self.plain):
            change(pipe)

    @property
    def plan(self) -> Plan | None:
        """What the pipeline is under."""
        found = optimized_of(self.pipe)
        return None if found is None else found.plan

    @rule(plan=st.sampled_from(PLANS))
    def optimise(self, plan: Plan) -> None:
        if plan.batch_split and self.marks:  # a hook of the owner's is no part of what is traced
            return
        autotune.apply(self.pipe, plan, workload=CALL)
        assert self.plan.same_as(plan)

    @rule()
    def call(self) -> None:
        image, wanted = run("sd", self.pipe, batch=2), run("sd", self.plain, batch=2)
        near = self.plan is not None and self.plan.quality_rank > 0
        torch.testing.assert_close(image.float(), wanted, rtol=0, atol=0.3 if near else 1e-4)

    @rule()
    def exchange_a_layer(self) -> None:
        self.marks += 1

        def change(pipe: Any) -> None:
            torch.manual_seed(self.marks)
            old = pipe.unet.conv_out
            new = torch.nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, padding=old.padding)
            pipe.unet.conv_out = new.to(pipe.unet.dtype)

        self.both(change)
        if self.plan is not None and self.plan.dtype is not None:  # what it holds is known to half precision only
            self.plain.unet.conv_out.to(torch.bfloat16).to(torch.float32)

    @rule()
    @precondition(lambda self: self.marks < 3)
    def hang_a_hook(self) -> None:
        self.marks += 1
        self.both(lambda pipe: pipe.unet.conv_norm_out.register_forward_hook(lambda _, __, output: output * 1.5))

    @rule()
    @precondition(lambda self: self.plan is not None)
    def switch_by_hand(self) -> None:
        """What the plan has set goes with the plan; what it has left as found is its owner's."""
        if self.plan.vae_slicing is None:
            self.plain.vae.enable_slicing()
        self.pipe.vae.enable_slicing()

    @rule()
    def exchange_the_denoiser(self) -> None:
        if self.plan is not None and self.plan.batch_split:
            return
        self.both(lambda pipe: setattr(pipe, "unet", build("sd").unet))
        self.marks = 0

    @rule()
    def copy_it(self) -> None:
        twin = copy.copy(self.pipe)
        assert optimized_of(twin) is None
        if self.plan is None or not (self.plan.offload or "").startswith("group"):
            part = copy.deepcopy(self.pipe.unet)
            assert not {id(weight) for weight in part.parameters()} & {
                id(weight) for weight in self.pipe.unet.parameters()
            }

    @rule()
    def ask(self) -> None:
        state = "as it is" if self.plan is None else "optimised"
        assert autotune.explain(self.pipe, workload=CALL).state == state

    @rule(
        plan=st.sampled_from(PLANS),
        at=st.integers(0, _MOST_CHANGES),
        error=st.sampled_from(sorted(ERRORS)),
        kind=st.sampled_from((AtChange, AtUndo)),
    )
    def fail(self, plan: Plan, at: int, error: str, kind: type[Injector]) -> None:
        before = self.plan
        with kind(at, ERRORS[error]), contextlib.suppress(KeyboardInterrupt, MemoryError, RuntimeError, AutotuneError):
            autotune.apply(self.pipe, Plan() if plan.batch_split else plan, workload=CALL)
        now = optimized_of(self.pipe)
        if now is not None and not now.is_whole:
            autotune.restore(self.pipe)
        stated = [one for one in (before, plan, Plan()) if one is not None]
        assert self.plan is None or any(self.plan.same_as(one) for one in stated)

    @rule()
    def take_back(self) -> None:
        autotune.restore(self.pipe)
        assert self.plan is None

    @rule()
    def let_go(self) -> None:
        alive = ref(self.pipe)
        weights = [ref(weight) for weight in weights_of(self.pipe).values()]
        self.pipe = None
        gc.collect()
        assert alive() is None
        assert not any(weight() is not None for weight in weights)
        self.load()

    @invariant()
    def it_is_whole(self) -> None:
        pipe = getattr(self, "pipe", None)
        if pipe is not None and self.plan is not None:
            assert optimized_of(pipe).is_whole

    def teardown(self) -> None:
        if getattr(self, "pipe", None) is None:
            return
        autotune.restore(self.pipe)
        now, wanted = weights_of(self.pipe), weights_of(self.plain)
        assert now.keys() == wanted.keys()
        for path, weight in wanted.items():
            exact = "conv_out" not in path
            torch.testing.assert_close(now[path], weight, rtol=0 if exact else 0.02, atol=0 if exact else 0.02)
        assert "forward" not in vars(self.pipe.unet) or not hasattr(vars(self.pipe.unet)["forward"], "autotune_mark")


@pytest.fixture(autouse=True)
def silent() -> Any:
    """What is told of each change is told elsewhere."""
    logger = logging.getLogger("autotune")
    logger.disabled = True
    with torch.compiler.set_stance("force_eager"):
        yield
    logger.disabled = False


QUICK = settings(
    max_examples=8, stateful_step_count=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def test_any_order_is_right() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Hands, settings=QUICK)


@pytest.mark.slow
def test_many_orders_are_right() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Hands, settings=settings(QUICK, max_examples=30, stateful_step_count=16))
