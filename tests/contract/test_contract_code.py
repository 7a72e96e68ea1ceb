"""`plan.code()` against `autotune.apply`: the same pipeline in the same state, and the same images, by two ways."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import autotune
from autotune.errors import PlanError
from autotune.flow.planning import facts_for
from autotune.levers import engine
from autotune.levers.base import Subject
from autotune.levers.offload import group_settings
from autotune.records.plan import LEVERS, Plan
from tests.contract.families import CPU, build, call_of, job, run
from tests.contract.ledger import ComponentLedger, LeafLedger, networks

PLANS = (
    Plan(),
    Plan(dtype="float16"),
    Plan(dtype="bfloat16", channels_last=True),
    Plan(attention="sdpa", vae_slicing=True),
    Plan(attention="vanilla"),
    Plan(attention="sliced:max"),
    Plan(attention="sliced:1", offload="sequential"),
    Plan(attention="backend:_native_math"),
    Plan(feed_forward_chunks=3, batch_split=2),
    Plan(compile="trace", batch_split=3, offload="model"),
    Plan(compile="blocks", text_encoders="cpu"),
    Plan(vae_framewise=True, offload="model"),
    Plan(vae_tiling=16, vae_slicing=True, offload="sequential"),
    Plan(vae_tiling=32, text_encoders="leave"),
    Plan(dtype="bfloat16", feed_forward_chunks=2, offload="group:block"),
    Plan(attention="sdpa", offload="group:leaf", text_encoders="leave"),
    Plan(channels_last=True, offload="group:block", text_encoders="cpu"),
)
GROUPS = (("sd", "flux", "wan"), ("sdxl", "sd3", "ltx"))


def words(plan: Plan) -> str:
    return " ".join(f"{name}={value}" for name, value in plan.changes.items()) or "nothing"


def fresh(family: str, plan: Plan) -> Any:
    """Processors worth replacing where they are replaced by fused ones."""
    return build(family, processors=plan.attention == "sdpa")


def families_for(plan: Plan, group: tuple[str, ...]) -> list[str]:
    """Those of a group that the plan can be applied to, by the engine's own word."""
    taken = []
    for family in group:
        pipe = fresh(family, plan)
        asked = job(family, pipe, batch=2)
        facts = {} if not plan.batch_split else facts_for(asked)
        try:
            engine.check(Subject(pipe, CPU, asked.largest, plan, facts), plan)
        except PlanError:
            continue
        taken.append(family)
    return taken


class Placed:
    """A pipeline after one of the two ways, its call and what the hooks did meanwhile."""

    def __init__(self, family: str, plan: Plan, *, by_code: bool) -> None:
        self.pipe = fresh(family, plan)
        with pytest.MonkeyPatch.context() as patch:
            ledger: Any = ComponentLedger(self.pipe, patch) if plan.offload == "model" else None
            if by_code:
                exec(compile(plan.code(device="cpu"), words(plan), "exec"), {"pipe": self.pipe})
            else:
                call = {"prompt": "a cat", **call_of(family, batch=2)}
                autotune.apply(self.pipe, plan, device="cpu", workload=call)
            self.state = state_of(self.pipe)
            ledger = LeafLedger(self.pipe, patch) if plan.offload == "sequential" else ledger
            with torch.compiler.set_stance("force_eager"):  # what is compiled stands in the state
                self.image = run(family, self.pipe, batch=2)
            self.moves = ledger.entries if ledger is not None else []


def state_of(pipe: Any) -> dict[str, Any]:
    """What a person would look at: weights, processors, switches and hooks, by path."""
    state: dict[str, Any] = {}
    for name, part in networks(pipe).items():
        for path, tensor in (*part.named_parameters(), *part.named_buffers()):
            state[f"{name}.{path}"] = (tensor.dtype, tensor.device, tensor.stride())
        for path, module in part.named_modules():
            state[f"{name}.{path} hooks"] = hooks_of(module)
            state[f"{name}.{path} compiled"] = module._compiled_call_impl is not None
            state[f"{name}.{path} wrapped"] = wrapped(module)
            processor = getattr(module, "processor", None)
            state[f"{name}.{path} processor"] = type(processor).__name__, dict(vars(processor)) if processor else {}
        state[f"{name} switches"] = {k: v for k, v in vars(part).items() if k.startswith(("use_", "tile_"))}
    return state


def wrapped(module: torch.nn.Module) -> int:
    """How many functions stand around the class's own forward."""
    function, count = module.forward, 0
    while hasattr(function, "__wrapped__"):
        function, count = function.__wrapped__, count + 1
    return count


def hooks_of(module: torch.nn.Module) -> Any:
    accelerates = getattr(module, "_hf_hook", None)
    diffusers = getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
    group = diffusers.get("group_offloading")
    device = getattr(accelerates, "execution_device", None)
    own = len(module._forward_pre_hooks), len(module._forward_hooks)
    return type(accelerates).__name__, device, sorted(diffusers), group and vars(group.config), own


@pytest.mark.parametrize("group", GROUPS, ids="-".join)
@pytest.mark.parametrize("plan", PLANS, ids=words)
def test_the_code_does_what_the_plan_does(plan, group):
    families = families_for(plan, group)
    assert families or group == GROUPS[0]
    for family in families:
        applied, coded = Placed(family, plan, by_code=False), Placed(family, plan, by_code=True)
        assert coded.state == applied.state, family
        assert coded.moves == applied.moves, family
        assert bool(coded.moves) == (plan.offload in {"model", "sequential"}), family
        assert torch.equal(coded.image, applied.image), family


def test_every_lever_is_compared_but_the_one_that_a_cpu_has_not():
    assert {name for plan in PLANS for name in plan.changes} == set(LEVERS) - {"tf32"}


@pytest.fixture
def precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_tf32_is_a_setting_of_the_process(precision):
    torch.set_float32_matmul_precision("highest")
    exec(Plan(tf32=True).code(device="cpu"), {"pipe": build("sd")})
    assert torch.get_float32_matmul_precision() == "high"


class Mover(torch.nn.Module):
    """A network that says where it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.sent: list[Any] = []

    def to(self, *args, **kwargs):
        self.sent.append(args[0])
        return self


class Stub:
    """A pipeline of three networks that records what is called on it."""

    def __init__(self) -> None:
        self.components = {"text_encoder_2": Mover(), "transformer": Mover(), "vae": Mover(), "scheduler": object()}
        self.calls: list[Any] = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_placements_on_a_card_are_the_calls_of_diffusers(device):
    pipe = Stub()
    for offload in ("none", "model", "sequential"):
        exec(Plan(offload=offload).code(device=device), {"pipe": pipe})
    assert pipe.calls == [
        ("to", (device,), {}),
        ("enable_model_cpu_offload", (), {"device": device}),
        ("to", ("cpu",), {"silence_dtype_warnings": True}),
        ("enable_sequential_cpu_offload", (), {"device": device}),
    ]


def test_text_encoders_stay_behind_on_a_card():
    pipe = Stub()
    exec(Plan(text_encoders="cpu").code(), {"pipe": pipe})
    sent = {name: part.sent for name, part in pipe.components.items() if name != "scheduler"}
    assert sent == {"text_encoder_2": ["cpu"], "transformer": ["cuda"], "vae": ["cuda"]}


def test_text_encoders_leave_once_when_the_denoiser_is_called():
    left = []

    class Part(torch.nn.Linear):
        def to(self, device):
            left.append(self)
            return self.to_empty(device=device)

    parts = {name: Part(1, 1) for name in ("text_encoder", "text_encoder_2", "unet")}
    exec(Plan(text_encoders="leave").code(device="cpu"), {"pipe": SimpleNamespace(components=parts)})
    parts["text_encoder"].to("meta")
    left.clear()
    for _ in range(2):
        parts["unet"](torch.ones(1))
    assert left == [parts["text_encoder"]]


@pytest.mark.parametrize("apart", ["resident", "leave", "cpu"])
@pytest.mark.parametrize("value", ["group:block+stream", "group:leaf+stream+record_stream+low_cpu_mem", "group:block"])
def test_groups_on_a_card_have_the_settings_of_the_lever(value, apart, monkeypatch):
    pipe, grouped = Stub(), {}
    names = {id(part): name for name, part in pipe.components.items()}

    def apply(module, onload_device, offload_device, **settings):
        assert (onload_device, offload_device) == (torch.device("cuda"), torch.device("cpu"))
        grouped[names[id(module)]] = settings

    monkeypatch.setattr("diffusers.hooks.apply_group_offloading", apply)
    exec(Plan(offload=value, text_encoders=apart).code(), {"pipe": pipe})
    wanted = {"transformer", "vae"} | ({"text_encoder_2"} if apart == "resident" else set())
    on = {
        name: {k: v for k, v in group_settings(name, pipe.components[name], value).items() if v is not False}
        for name in wanted
    }
    assert grouped == on


def test_a_network_that_cannot_be_grouped_is_moved(monkeypatch):
    pipe, grouped = Stub(), []
    pipe.components["vae"]._supports_group_offloading = False
    pipe.components["text_encoder_2"].weight_g = torch.nn.Parameter(torch.zeros(1))
    monkeypatch.setattr("diffusers.hooks.apply_group_offloading", lambda module, *_, **__: grouped.append(module))
    exec(Plan(offload="group:leaf").code(), {"pipe": pipe})
    assert grouped == [pipe.components["transformer"]]
    assert pipe.components["vae"].sent == pipe.components["text_encoder_2"].sent == ["cuda"]


def test_the_largest_network_is_the_denoiser_where_no_name_says_so():
    parts = {"small": torch.nn.Linear(2, 2), "large": torch.nn.Linear(9, 9)}
    scope: dict[str, Any] = {"pipe": SimpleNamespace(components=parts, to=lambda device: None)}
    exec(Plan(batch_split=2).code(device="cpu"), scope)
    assert scope["denoisers"] == [parts["large"]]
