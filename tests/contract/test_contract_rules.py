"""Every rule on pairs of lever values: it refuses before anything is touched, and what happens without it.

Without it means both levers pulled by hand, past the check. There is no card here, so what a card would do is told from what
hooks do: which fire, in which order, and what is said to be where.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import partialmethod
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.hooks import group_offloading
from torch._dynamo.utils import counters

from autotune.errors import PlanError
from autotune.flow.planning import facts_for
from autotune.guard import applying
from autotune.levers.base import Subject
from autotune.levers.engine import ORDER
from autotune.levers.tracing import Traced
from autotune.records.plan import LEVERS, Plan
from autotune.records.rules import RULES, conflict
from autotune.upstream import groups, port
from tests.contract.families import CPU, FAMILIES, build, job, pulled, run, values_of
from tests.contract.ledger import ComponentLedger
from tests.contract.test_contract_levers import Snapshot

GROUPS = ("group:block", "group:leaf", "group:block+stream", "group:leaf+stream", "group:leaf+stream+record_stream")
BROKEN = {
    "traced code cannot load weights": [Plan(compile="trace", offload=mode) for mode in ("sequential", *GROUPS)],
    "compiled blocks break at hooks": [Plan(compile="blocks", offload=mode) for mode in ("sequential", *GROUPS)],
    "text encoders take their turn already": [
        Plan(text_encoders=place, offload=mode) for place in ("leave", "cpu") for mode in ("model", "sequential")
    ],
    "prefetching learns one order": [
        Plan(feed_forward_chunks=chunks, offload=mode)
        for chunks in (2, 64)
        for mode in ("group:leaf+stream", "group:leaf+stream+low_cpu_mem")
    ],
}
"""Plans that break a rule and no other."""
EACH = [(rule, plan) for rule in RULES for plan in BROKEN.get(rule.name, ())]
WHY: dict[str, list[Callable[..., None]]] = {}
"""The tests that show what happens without a rule, by its name."""


def shows(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Enters a test under the rule whose reason it shows."""

    def enter(test: Callable[..., None]) -> Callable[..., None]:
        WHY.setdefault(name, []).append(test)
        return test

    return enter


@pytest.fixture(params=EACH, ids=lambda pair: f"{pair[0].name}: {pair[1].changes}")
def broken(request):
    return request.param


class TestRefusals:
    """What a plan that breaks a rule is answered."""

    def test_it_is_refused_in_the_rules_words_and_nothing_is_touched(self, broken):
        rule, plan = broken
        pipe = build("sd")
        before = Snapshot(pipe)
        with pytest.raises(PlanError) as caught:
            applying.apply(pipe, plan, device=CPU, workload=job("sd", pipe).largest)
        assert str(caught.value) == rule.words(plan)
        assert applying.optimized_of(pipe) is None
        before.assert_same(pipe)

    def test_its_words_name_what_was_asked_and_what_works(self, broken):
        rule, plan = broken
        words = rule.words(plan)
        for lever, value in plan.changes.items():
            assert f"{lever}={value!r}" in words.partition(" cannot be applied: ")[0]
        assert advised(words)
        for lever, value in advised(words):
            assert conflict(plan.model_copy(update={lever: value})) is None, (lever, value)

    def test_an_earlier_plan_stays(self):
        pipe = build("sd")
        call = job("sd", pipe).largest
        applying.apply(pipe, Plan(vae_slicing=True), device=CPU, workload=call)
        with pytest.raises(PlanError):
            applying.apply(pipe, EACH[0][1], device=CPU, workload=call)
        assert applying.optimized_of(pipe).plan.changes == {"vae_slicing": True}
        assert pipe.vae.use_slicing


class TestRules:
    """The rules among themselves."""

    def test_the_pipeline_as_it_is_breaks_none(self):
        assert conflict(Plan()) is None

    @pytest.mark.parametrize("lever", LEVERS)
    def test_a_lever_alone_breaks_none(self, lever):
        values = {value for family in FAMILIES for value in values_of(family, batch=2)[lever]}
        values |= {"offload": set(GROUPS)}.get(lever, set())
        for value in values:
            assert conflict(Plan(**{lever: value})) is None, value

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
    def test_it_can_be_reached(self, rule):
        assert BROKEN[rule.name]
        assert all(conflict(plan) is rule for plan in BROKEN[rule.name])
        assert {rule.one, rule.other} == set(BROKEN[rule.name][0].changes)

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
    def test_a_test_shows_why_it_is(self, rule):
        assert WHY.get(rule.name), f"no test under @shows({rule.name!r})"

    def test_nothing_else_is_shown(self):
        assert set(WHY) == set(BROKEN) == {rule.name for rule in RULES}


def advised(words: str) -> list[tuple[str, Any]]:
    """The values that a refusal says work: "offload='none' or 'model'" are two of one lever."""
    found, lever = [], ""
    for named, value in re.findall(r"(?:(\w+)=)?('[^']*'|False)", words.partition("what works is ")[2]):
        lever = named or lever
        found.append((lever, False if value == "False" else value.strip("'")))
    return found


def by_hand(family: str, pipe: Any, plan: Plan, *, device: str = "cpu", facts: Any = None) -> None:
    """Pulls the plan's levers in the engine's order, past its check."""
    place = CPU.model_copy(update={"torch_device": device})
    subject = Subject(pipe, place, job(family, pipe).largest, plan, facts or {})
    for lever in ORDER:
        if lever.name in plan.changes:
            pulled(lever, subject, plan.changes[lever.name])


def breaks(name: str, **changes: Any) -> Plan:
    """A plan that is known to break this rule."""
    plan = Plan(**changes)
    assert conflict(plan).name == name
    return plan


@pytest.fixture
def traces(monkeypatch):
    """The traces that are made."""
    made: list[Any] = []
    really_traced = Traced._traced
    monkeypatch.setattr(Traced, "_traced", lambda *given: made.append(really_traced(*given)) or made[-1])
    return made


def call_unet(unet: torch.nn.Module) -> torch.Tensor:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return unet(torch.ones(1, 4, 8, 8), torch.tensor(1), torch.ones(1, 16, 32)).sample


def constant_bytes(trace: Any) -> int:
    """Bytes of the tensors that a trace holds by itself, beside the module's parameters."""
    graphs = [module.graph for module in trace.modules() if module._c._has_method("forward")]
    nodes = [node for graph in graphs for node in graph.findAllNodes("prim::Constant") if node.hasAttribute("value")]
    held = [node.t("value") for node in nodes if node.kindOf("value") == "t"]
    return sum({tensor.data_ptr(): tensor.numel() * tensor.itemsize for tensor in held}.values())


@shows("traced code cannot load weights")
def test_a_trace_keeps_every_weight_that_sequential_offload_brings(traces):
    """They are constants of the graph, on the device where they were when it was made: on a card, all of them at once."""
    plain, offloaded = build("sd"), build("sd")
    weights_bytes = sum(p.numel() * p.itemsize for p in plain.unet.parameters())
    by_hand("sd", plain, Plan(compile="trace"))
    by_hand("sd", offloaded, breaks("traced code cannot load weights", compile="trace", offload="sequential"))
    torch.testing.assert_close(call_unet(offloaded.unet), call_unet(plain.unet))
    held_offloaded, held_plain = (constant_bytes(trace) for trace in traces)
    assert held_plain < 0.01 * weights_bytes
    assert held_offloaded >= weights_bytes


@shows("traced code cannot load weights")
@pytest.mark.parametrize("offload", ["group:leaf", "group:block"])
def test_a_trace_runs_without_the_weights_of_groups(offload, monkeypatch):
    """The hooks of layers and blocks fire while it is traced and never again: on a card their weights would be in RAM."""
    loaded: list[Any] = []
    really_onload = group_offloading.ModuleGroup.onload_
    monkeypatch.setattr(
        group_offloading.ModuleGroup, "onload_", lambda group: loaded.append(group) or really_onload(group)
    )

    def loaded_by_two_calls(plan: Plan) -> list[set[Any]]:
        pipe = build("sd")
        by_hand("sd", pipe, plan)
        calls = []
        for _ in range(2):
            loaded.clear()
            call_unet(pipe.unet)
            calls.append({group for group in loaded if group.onload_leader is not pipe.unet})
        return calls

    _, again = loaded_by_two_calls(Plan(offload=offload))
    assert len(again) >= 4
    first, again = loaded_by_two_calls(breaks("traced code cannot load weights", compile="trace", offload=offload))
    assert len(first) >= 4
    assert again == set()


@pytest.fixture
def dynamo(monkeypatch):
    """Blocks are captured by dynamo and not compiled; its counters are for this test alone."""
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    yield counters
    torch._dynamo.reset()
    counters.clear()


def graph_breaks(plan: Plan) -> int:
    pipe = build("flux")
    by_hand("flux", pipe, plan)
    run("flux", pipe)
    assert counters["stats"]["unique_graphs"] > 0
    return sum(counters["graph_break"].values())


@pytest.mark.parametrize("offload", ["none", "model"])
def test_compiled_blocks_are_whole_where_no_hook_is_inside(offload, dynamo):
    assert graph_breaks(Plan(compile="blocks", offload=offload)) == 0


@shows("compiled blocks break at hooks")
@pytest.mark.parametrize("offload", ["sequential", "group:leaf", "group:block"])
def test_each_hook_that_loads_weights_breaks_a_compiled_block(offload, dynamo):
    """By leaf within the block, by block around it: both hooks forbid dynamo to look into them."""
    assert graph_breaks(breaks("compiled blocks break at hooks", compile="blocks", offload=offload)) > 0


TURNS = "text encoders take their turn already"


@shows(TURNS)
def test_model_offload_sends_text_encoders_away_by_itself(monkeypatch):
    pipe = build("sd")
    ledger = ComponentLedger(pipe, monkeypatch)
    by_hand("sd", pipe, Plan(offload="model"), device="cpu:0")
    run("sd", pipe)
    present = [call.present for call in ledger.calls if call.component == "unet"]
    assert present
    assert not any("text_encoder" in there for there in present)


@shows(TURNS)
def test_model_offload_brings_text_encoders_to_the_card_that_shall_run_on_the_cpu(monkeypatch):
    pipe = build("sd")
    ledger = ComponentLedger(pipe, monkeypatch)
    by_hand("sd", pipe, breaks(TURNS, text_encoders="cpu", offload="model"), device="cpu:0")
    run("sd", pipe)
    present = [call.present for call in ledger.calls if call.component == "text_encoder"]
    assert present
    assert all("text_encoder" in there for there in present)


@shows(TURNS)
@pytest.mark.parametrize("value", ["leave", "cpu"])
def test_sequential_offload_leaves_nothing_that_could_come_and_go_as_a_whole(value):
    pipe = build("sd")
    by_hand("sd", pipe, breaks(TURNS, text_encoders=value, offload="sequential"))
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        run("sd", pipe)


class Prefetching:
    """Streamed groups with a stand-in for the stream: diffusers' own hooks decide, and what they load is only written down.

    A group is late if its module runs before anybody has loaded it: diffusers then waits for a copy that nothing hides.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.here: set[Any] = set()
        self.late: list[Any] = []
        self.order: dict[Any, list[tuple[str, Any]]] = {}
        really_pre_forward = group_offloading.GroupOffloadingHook.pre_forward
        really_initialize = group_offloading.LazyPrefetchGroupOffloadingHook.initialize_hook

        def pre_forward(hook: Any, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            sent = really_pre_forward(hook, module, *args, **kwargs)
            if hook.group not in self.here:
                self.late.append(hook.group)
            return sent

        def initialize_hook(hook: Any, module: torch.nn.Module) -> torch.nn.Module:
            self.order[module] = hook.execution_order
            return really_initialize(hook, module)

        patch.setattr(group_offloading.ModuleGroup, "onload_", lambda group: self.here.add(group))
        patch.setattr(group_offloading.ModuleGroup, "offload_", lambda group: self.here.discard(group))
        patch.setattr(group_offloading.GroupOffloadingHook, "pre_forward", pre_forward)
        patch.setattr(group_offloading.LazyPrefetchGroupOffloadingHook, "initialize_hook", initialize_hook)
        patch.setattr(groups, "group", self.group)

    def group(self, part: torch.nn.Module, device: torch.device, *, use_stream: bool, **settings: Any) -> None:
        """What `apply_group_offloading` does after it has made a stream, which a CPU has not."""
        config = group_offloading.GroupOffloadingConfig(
            onload_device=device,
            offload_device=torch.device("meta"),  # no weight is there: diffusers then trusts that they were loaded
            non_blocking=False,
            stream=SimpleNamespace(synchronize=lambda: None) if use_stream else None,
            offload_type=group_offloading.GroupOffloadingType(settings.pop("offload_type")),
            block_modules=getattr(part, "_group_offload_block_modules", None),
            exclude_kwargs=getattr(part, "_skip_keys", None),
            **settings | {"low_cpu_mem_usage": True},  # nothing is pinned: that needs a card
        )
        group_offloading._apply_group_offloading(part, config)

    def second_call(self, family: str, plan: Plan, *, batch: int = 1) -> tuple[int, list[str]]:
        """Groups that are late once an order has been learned, and that order."""
        pipe = build(family)
        facts = facts_for(job(family, pipe, batch=batch)) if plan.batch_split else None
        by_hand(family, pipe, plan, facts=facts)
        run(family, pipe, batch=batch)
        self.late.clear()
        run(family, pipe, batch=batch)
        (denoiser,) = port.denoisers(pipe).values()
        return len(self.late), [name for name, _ in self.order[denoiser]]


@pytest.fixture
def prefetching(monkeypatch):
    return Prefetching(monkeypatch)


ORDER_RULE = "prefetching learns one order"


@shows(ORDER_RULE)
@pytest.mark.parametrize("family", ["sd", "flux", "wan"])
def test_layers_that_run_several_times_are_not_prefetched(family, prefetching):
    """Each layer knows one that comes next, the last that it saw: a chunk's first layer waits for its weights."""
    late, order = prefetching.second_call(family, Plan(offload="group:leaf+stream"))
    assert (late, len(order)) == (0, len(set(order)))
    chunked = breaks(ORDER_RULE, offload="group:leaf+stream", feed_forward_chunks=3)
    late, order = prefetching.second_call(family, chunked)
    assert late > 0
    repeated = {name for name in order if order.count(name) > 1}
    assert repeated
    assert all(".ff" in name or "ffn" in name for name in repeated)


@pytest.mark.parametrize("family", ["sd", "flux", "wan"])
def test_blocks_run_once_whatever_the_chunks(family, prefetching):
    """What the rule says works: no layer by itself is prefetched."""
    late, order = prefetching.second_call(family, Plan(offload="group:block+stream", feed_forward_chunks=3))
    assert (late, len(order)) == (0, len(set(order)))


@pytest.mark.parametrize("offload", ["group:leaf+stream", "group:block+stream"])
@pytest.mark.parametrize("family", ["sd", "flux"])
def test_parts_of_a_batch_keep_the_order(family, offload, prefetching):
    """Why there is no rule for them: the same order comes again from its beginning."""
    late, order = prefetching.second_call(family, Plan(offload=offload, batch_split=2), batch=2)
    assert late == 0
    half = len(order) // 2
    assert order[:half] == order[half:]
