"""What a plan leaves as found stays as its owner had set it up, and what it switches off is off: both until `restore`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import accelerate
import pytest
import torch

import autotune
from autotune.flow.planning import as_it_is, estimates, front_of, space_of
from autotune.guard import applying
from autotune.guard.applying import optimized_of
from autotune.levers.engine import ORDER, current_plan
from autotune.levers.tf32 import Tf32
from autotune.records.plan import OFF, PLAIN, Plan
from autotune.upstream import port
from benchmarks.faults.seen import Seen, weights_of
from tests.contract.families import CARD, CPU, TILES, build, call_of, job, pulled, run, subject_of
from tests.contract.states import STATES, denoiser, entered

pytestmark = pytest.mark.filterwarnings("ignore")


def _tile(pipe: Any) -> None:
    pipe.vae.enable_tiling()
    pipe.vae.tile_sample_min_size, pipe.vae.tile_latent_min_size = 16, 8
    pipe.vae.tile_overlap_factor = 0.5  # no value of the lever says this


def _last(pipe: Any) -> None:
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)


def _in_runs(pipe: Any) -> None:
    pipe.vae.use_framewise_decoding = True


def _chunk(pipe: Any) -> None:
    for module in denoiser(pipe).modules():
        if hasattr(module, "set_chunk_feed_forward"):
            module.set_chunk_feed_forward(4, 1)


class Owners(NamedTuple):
    """What an owner sets up: in which family, by what, and how the lever reads it."""

    family: str
    lever: str
    enter: Callable[[Any], Any]
    read: Any


SETTINGS = {
    "slices": Owners("sd", "vae_slicing", lambda pipe: pipe.vae.enable_slicing(), True),
    "tiles": Owners("sd", "vae_tiling", _tile, None),
    "layout": Owners("sd", "channels_last", _last, True),
    "runs of frames": Owners("ltx", "vae_framewise", _in_runs, True),
    "chunks": Owners("sd", "feed_forward_chunks", _chunk, None),
    "blocks compiled in place": Owners("flux", "compile", lambda pipe: denoiser(pipe).compile_repeated_blocks(), None),
}
ELSEWHERE = {"sd": Plan(dtype="fp32", attention="vanilla", batch_split=2), "flux": Plan(attention="sdpa"),
             "ltx": Plan(attention="sdpa", text_encoders="leave")}  # fmt: skip


def workload(family: str) -> dict[str, Any]:
    return {"prompt": "a cat", **call_of(family, batch=2)}


@pytest.fixture(params=SETTINGS)
def owners(request: pytest.FixtureRequest) -> Any:
    with torch.compiler.set_stance("force_eager"):
        yield SETTINGS[request.param]


class TestSettings:
    """Switches that the owner has thrown."""

    def test_a_plan_that_says_nothing_of_it_leaves_it(self, owners: Owners) -> None:
        pipe = build(owners.family)
        owners.enter(pipe)
        image, before = run(owners.family, pipe, batch=2), Seen(pipe)
        found = current_plan(pipe)
        assert getattr(found, owners.lever) == owners.read
        for plan in (Plan(), ELSEWHERE[owners.family]):
            autotune.apply(pipe, plan, workload=workload(owners.family))
            assert getattr(current_plan(pipe), owners.lever) == owners.read
            exact = plan.changes.keys() <= {"text_encoders"}
            torch.testing.assert_close(run(owners.family, pipe, batch=2), image, rtol=0, atol=0 if exact else 1e-4)
            autotune.restore(pipe)
            before.assert_same(pipe)

    def test_a_plan_switches_it_off_until_it_is_restored(self, owners: Owners) -> None:
        pipe, plain = build(owners.family), build(owners.family)
        wanted = run(owners.family, plain, batch=2)
        owners.enter(pipe)
        run(owners.family, pipe, batch=2)
        before = Seen(pipe)
        autotune.apply(pipe, Plan(**{owners.lever: OFF[owners.lever]}), workload=workload(owners.family))
        assert getattr(current_plan(pipe), owners.lever) == OFF[owners.lever]
        torch.testing.assert_close(run(owners.family, pipe, batch=2), wanted, rtol=0, atol=1e-4)
        autotune.restore(pipe)
        before.assert_same(pipe)

    @pytest.mark.parametrize("name", [name for name, owners in SETTINGS.items() if owners.read is not None])
    def test_the_same_is_estimated_as_the_owners_and_as_the_plans(self, name: str) -> None:
        """Where a value of the lever says what the owner has set up."""
        owners = SETTINGS[name]
        pipe = build(owners.family)
        owners.enter(pipe)
        asked, plain = job(owners.family, pipe, batch=2), job(owners.family, build(owners.family), batch=2)
        theirs, off = as_it_is(asked).estimate, estimates(asked, [Plan(**{owners.lever: OFF[owners.lever]})])[0]
        ours, neither = estimates(plain, [Plan(**{owners.lever: owners.read}), Plan()])
        for one, other in ((theirs, ours), (off, neither)):
            assert one.phases == other.phases
            assert one.latency_s == other.latency_s

    def test_a_search_may_leave_it_or_switch_it_off(self, owners: Owners) -> None:
        pipe = build(owners.family)
        owners.enter(pipe)
        values = space_of(job(owners.family, pipe, batch=2)).values[owners.lever]
        assert values[0] is None
        assert owners.read is None or owners.read not in values[1:]

    def test_it_is_told(self, owners: Owners) -> None:
        pipe = build(owners.family)
        owners.enter(pipe)
        explained = autotune.explain(pipe, workload=workload(owners.family))
        assert (explained.state, explained.chosen.plan.changes) == ("as it is", {})
        assert getattr(explained.runs, owners.lever) == owners.read


PLACED = (
    "model offload",
    "sequential offload",
    "groups by leaf",
    "groups by block",
    "one component in groups",
    "hung by hand",
)


@pytest.fixture(
    params=[(name, family) for name in PLACED for family in ("sd", "flux") if family in STATES[name].families]
)
def placed(request: pytest.FixtureRequest) -> tuple[str, Any, torch.Tensor]:
    name, family = request.param
    pipe = entered(name, family, build)
    return family, pipe, run(family, pipe, batch=2)


class TestPlacement:
    """Offload that the owner has set up."""

    def test_it_goes_over_what_the_plan_changes(self, placed: tuple[str, Any, torch.Tensor]) -> None:
        family, pipe, image = placed
        before, mode = Seen(pipe), port.offloaded(pipe)
        chunks = Plan(feed_forward_chunks=2, vae_tiling=TILES[family] * 4, vae_slicing=True)
        for plan in (Plan(), chunks, Plan(dtype="bf16")):
            autotune.apply(pipe, plan, workload=workload(family))
            assert (port.offloaded(pipe), optimized_of(pipe).runs.offload) == (mode, current_plan(pipe).offload)
            for _ in range(2):
                made = run(family, pipe, batch=2).float()
                torch.testing.assert_close(made, image, rtol=0, atol=0.3 if plan.dtype else 1e-4)
            autotune.restore(pipe)
            before.assert_same(pipe)

    def test_a_plan_takes_it_off_until_it_is_restored(self, placed: tuple[str, Any, torch.Tensor]) -> None:
        family, pipe, image = placed
        before = Seen(pipe)
        autotune.apply(pipe, Plan(offload="none"), workload=workload(family))
        assert port.offloaded(pipe) == "none"
        assert not any(weight.is_meta for weight in weights_of(pipe).values())
        torch.testing.assert_close(run(family, pipe, batch=2), image, rtol=0, atol=0)
        autotune.restore(pipe)
        before.assert_same(pipe)

    def test_a_network_that_is_exchanged_runs_beside_it(self, placed: tuple[str, Any, torch.Tensor]) -> None:
        family, pipe, image = placed
        mode, other = port.offloaded(pipe), build(family).vae
        autotune.apply(pipe, Plan(), workload=workload(family))
        pipe.vae = other
        torch.testing.assert_close(run(family, pipe, batch=2), image, rtol=0, atol=1e-4)
        autotune.restore(pipe)  # as if it had been exchanged before, which diffusers itself may not be able to run
        assert (port.offloaded(pipe), pipe.vae) == (mode, other)

    def test_on_another_device_it_is_refused(self) -> None:
        pipe = entered("model offload", "sd", build)
        before = Seen(pipe)
        away, call = CPU.model_copy(update={"torch_device": "meta"}), job("sd", build("sd")).largest
        with pytest.raises(
            autotune.PlanError, match=r"offload brings weights to cpu(:0)?, and the plan is for meta; give"
        ):
            applying.apply(pipe, Plan(), device=away, workload=call)
        before.assert_same(pipe)

    @pytest.mark.parametrize("name", ["groups by leaf", "groups by block"])
    def test_text_encoders_apart_are_not_in_it(self, name: str) -> None:
        pipe = entered(name, "flux", build)
        image, before = run("flux", pipe, batch=2), Seen(pipe)
        autotune.apply(pipe, Plan(text_encoders="leave"), workload=workload("flux"))
        assert port.offloaded(pipe) == "group"
        torch.testing.assert_close(run("flux", pipe, batch=2), image, rtol=0, atol=0)
        autotune.restore(pipe)
        before.assert_same(pipe)

    def test_the_whole_is_estimated_as_the_mode_and_a_part_as_resident(
        self, placed: tuple[str, Any, torch.Tensor]
    ) -> None:
        family, pipe, _ = placed
        asked = job(family, pipe, batch=2)
        assert asked.found.offload == current_plan(pipe).offload
        mode = asked.found.offload or "none"
        wanted = estimates(job(family, build(family), batch=2), [Plan(offload=mode)])[0]
        assert as_it_is(asked).estimate.phases == wanted.phases
        assert as_it_is(asked).estimate.host_ram_bytes == wanted.host_ram_bytes

    @pytest.mark.parametrize("name", ["one component in groups", "hung by hand", "VAE in parts", "dispatched"])
    def test_single_networks_are_not_the_pipeline(self, name: str) -> None:
        pipe = build("sd")
        if name == "VAE in parts":
            accelerate.cpu_offload(pipe.vae, torch.device("cpu"))
        else:
            STATES[name].enter(pipe)
        found = job("sd", pipe, batch=2, device=CARD)
        assert found.found.offload == ("none" if name == "dispatched" else None)
        values = space_of(found).values["offload"]
        assert values[0] is None
        assert {"model", "sequential", "group:block"} <= set(values)
        image, before = run("sd", pipe, batch=2), Seen(pipe)
        autotune.apply(pipe, Plan(text_encoders="leave", dtype="bf16"), workload=workload("sd"))
        torch.testing.assert_close(run("sd", pipe, batch=2).float(), image, rtol=0, atol=0.3)
        autotune.restore(pipe)
        before.assert_same(pipe)

    def test_compiled_code_is_refused_where_weights_may_move_inside(self) -> None:
        pipe = entered("one component in groups", "sd", build)
        with pytest.raises(autotune.PlanError, match="compile='trace' with offload=None cannot be applied"):
            autotune.apply(pipe, Plan(compile="trace"), workload=workload("sd"))
        autotune.restore(autotune.apply(pipe, Plan(compile="trace", offload="none"), workload=workload("sd")))

    def test_a_search_for_another_device_takes_it_off(self) -> None:
        pipe = build("sd")
        accelerate.cpu_offload(pipe.unet, torch.device("meta"))
        autotune.optimize(pipe, workload=workload("sd"), device="cpu", profiles=False)
        assert optimized_of(pipe).plan.offload == "none"
        autotune.restore(pipe)
        assert port.offloaded(pipe) == "sequential"

    def test_what_was_hung_over_weights_of_inference_mode_is_refused(self) -> None:
        with torch.inference_mode():
            pipe = entered("sequential offload", "sd", build)
        before = Seen(pipe)
        with pytest.raises(autotune.PlanError, match=r"made in torch\.inference_mode, which forbids replacing them"):
            autotune.apply(pipe, Plan(), workload=workload("sd"))
        before.assert_same(pipe)

    def test_a_pair_with_it_is_refused_by_rule(self) -> None:
        pipe = entered("sequential offload", "sd", build)
        before = Seen(pipe)
        for plan in (Plan(compile="trace"), Plan(text_encoders="leave")):
            with pytest.raises(autotune.PlanError, match="with offload='sequential' cannot be applied"):
                autotune.apply(pipe, plan, workload=workload("sd"))
            before.assert_same(pipe)


class TestKept:
    """What the caller fixes is in the plan, found or not."""

    def test_it_stays_a_value(self) -> None:
        front = front_of(job("sd", build("sd"), batch=2), keep={"vae_slicing": False, "tf32": None, "offload": "none"})
        assert {(plan.vae_slicing, plan.tf32, plan.offload) for plan in front.plans()} == {(False, None, "none")}

    def test_tf32_of_this_process_says_nothing_of_another_card(self) -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            assert space_of(job("sd", build("sd"), device=CARD)).values["tf32"] == (None, True)
        finally:
            torch.set_float32_matmul_precision(before)

    def test_own_tiles_are_not_those_of_a_plan(self) -> None:
        pipe = build("wan")
        pipe.vae.enable_tiling(32, 32, 16, 16)
        assert current_plan(pipe).vae_tiling is None
        own, usual = estimates(job("wan", pipe, batch=1), [Plan(), Plan(vae_tiling=32)])
        assert usual.latency_s == estimates(job("wan", build("wan"), batch=1), [Plan(vae_tiling=32)])[0].latency_s
        assert own.latency_s > usual.latency_s

    @pytest.mark.parametrize("state", ["tiles", "chunks"])
    def test_what_no_value_describes_is_in_no_profile(self, state: str, tmp_path: Any) -> None:
        pipe = build("sd")
        SETTINGS[state].enter(pipe)
        narrow = {"workload": {**CALL_OF_PROFILE}, "device": "cpu", "profiles": tmp_path}
        autotune.plan(pipe, **narrow)
        assert not list(tmp_path.rglob("*.json"))
        autotune.plan(build("sd"), **narrow)
        assert list(tmp_path.rglob("*.json"))

    def test_only_the_denoisers_code_is_compiled_or_not(self) -> None:
        pipe = build("flux")
        pipe.vae.decoder.compile()
        assert current_plan(pipe).compile == "none"
        denoiser(pipe).compile_repeated_blocks()
        assert current_plan(pipe).compile is None
        with pytest.raises(autotune.PlanError, match="vae is compiled"):
            autotune.apply(pipe, Plan(compile="none", offload="sequential"), workload=workload("flux"))
        pipe = entered("compiled blocks", "flux", build)
        autotune.restore(autotune.apply(pipe, Plan(compile="none", offload="sequential"), workload=workload("flux")))
        assert current_plan(pipe).compile is None

    def test_a_wrapper_is_not_taken_off(self) -> None:
        pipe = entered("compiled wrapper", "sd", build)
        with pytest.raises(
            autotune.PlanError, match=r"unet is what torch\.compile returned, which is not unwrapped for its owner"
        ):
            autotune.apply(pipe, Plan(compile="none"))


CALL_OF_PROFILE = {"height": 32, "width": 32, "num_inference_steps": 2}


def test_plain_pipelines_read_as_plain() -> None:
    for family in ("sd", "flux", "ltx"):
        assert current_plan(build(family)).same_as(PLAIN)


def test_no_lever_is_pulled_that_the_plan_does_not_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pulled: list[str] = []
    for lever in ORDER:
        monkeypatch.setattr(type(lever), "apply", lambda self, *_: pulled.append(self.name))
    autotune.restore(autotune.apply(build("sd"), Plan(vae_slicing=False, tf32=False)))
    assert pulled == ["tf32", "vae_slicing", "offload"]


class TestProcess:
    """TF32, which all pipelines of a process share."""

    def test_off_is_off_and_comes_back(self) -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            pipe = autotune.apply(build("sd"), Plan(tf32=False))
            assert torch.get_float32_matmul_precision() == "highest"
            second = autotune.apply(build("sd"), Plan(tf32=False))
            autotune.restore(pipe)
            assert torch.get_float32_matmul_precision() == "highest"
            autotune.restore(second)
            assert torch.get_float32_matmul_precision() == "high"
        finally:
            torch.set_float32_matmul_precision(before)

    def test_two_pipelines_cannot_have_it_both_ways(self) -> None:
        journal = pulled(Tf32(), subject_of(Tf32(), "sd", None), True)
        pipe = build("sd")
        before = Seen(pipe)
        try:
            with pytest.raises(
                autotune.PlanError, match="tf32=False cannot be applied: it is one setting for the whole"
            ):
                autotune.apply(pipe, Plan(tf32=False))
            before.assert_same(pipe)
        finally:
            journal.undo()


def test_the_value_as_found_has_many_spellings_and_none_is_off() -> None:
    for lever in ORDER:
        if lever.name != "dtype":
            for words in ("as_is", "as found", "default", " As Is "):
                assert getattr(Plan(**{lever.name: words}), lever.name) is None
    for words in ("as_is", "as is", {"default": "as_is"}):
        assert Plan(dtype=words).dtype is None
    for name, off in OFF.items():
        assert Plan(**{name: "none"}).changes == Plan(**{name: "off"}).changes == {name: off}
