"""A plan as a script: what stands in it, in which order, and that nobody's words get out of a comment."""

from __future__ import annotations

import ast
import builtins

import pytest

from autotune.errors import PlanError
from autotune.levers.engine import ORDER
from autotune.records.code import code_of
from autotune.records.model import role_named
from autotune.records.plan import LEVERS, Plan
from autotune.records.rules import conflict
from autotune.records.snippets import SHARED

OFFLOADS = (None, "none", "model", "sequential", *(f"group:{level}{options}" for level in ("block", "leaf") for options in (
    "", "+stream", "+stream+low_cpu_mem", "+stream+record_stream", "+stream+record_stream+low_cpu_mem")))  # fmt: skip
VALUES = {
    "dtype": (None, "float16", "bfloat16"),
    "tf32": (True, False),
    "channels_last": (True, False),
    "attention": (None, "sdpa", "vanilla", "xformers", "sliced:auto", "sliced:max", "sliced:4", "backend:flash",
                  "backend:_flash_3", "backend:sage"),
    "feed_forward_chunks": (4, False),
    "batch_split": (2, False),
    "vae_slicing": (True, False),
    "vae_tiling": (512, False),
    "vae_framewise": (True, False),
    "compile": (None, "none", "trace", "blocks"),
    "offload": OFFLOADS,
    "text_encoders": (None, "resident", "leave", "cpu"),
}  # fmt: skip
SINGLE = [Plan(**{name: value}) for name, values in VALUES.items() for value in values]
EVERYTHING = Plan(
    dtype="bfloat16", tf32=True, channels_last=True, attention="xformers", feed_forward_chunks=4, batch_split=2,
    vae_slicing=True, vae_tiling=512, vae_framewise=True, text_encoders="leave",
    offload="group:block+stream+record_stream+low_cpu_mem",
)  # fmt: skip
TRACED = Plan(compile="trace", batch_split=2, feed_forward_chunks=2, offload="model")
PLANS = [*SINGLE, EVERYTHING, TRACED]


def words(plan: Plan) -> str:
    return " ".join(f"{name}={value}" for name, value in plan.changes.items()) or "nothing"


def of_comments(code: str) -> str:
    """The comments at the margin, as one line."""
    return " ".join(line.removeprefix("# ") for line in code.splitlines() if line.startswith("#"))


def test_every_lever_has_values_here():
    assert set(VALUES) == set(LEVERS)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("plan", PLANS, ids=words)
class TestEachPlan:
    """What holds for the script of every plan."""

    def test_it_is_python_without_this_library(self, plan, device):
        code = plan.code(device=device)
        compile(code, "plan", "exec")
        assert "autotune" not in code
        assert not code.endswith("\n")
        assert max(map(len, code.splitlines())) <= 120

    def test_it_begins_with_the_imports_it_uses(self, plan, device):
        tree = ast.parse(plan.code(device=device))
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert tree.body[: len(imports)] == imports
        names = [alias.name for node in imports for alias in node.names]
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        stored |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        stored |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        assert set(names) <= used
        assert used - stored - set(names) - set(dir(builtins)) == {"pipe"}
        assert len(names) == len(set(names))

    def test_only_this_device_and_the_cpu_are_named(self, plan, device):
        strings = {
            node.value for node in ast.walk(ast.parse(plan.code(device=device))) if isinstance(node, ast.Constant)
        }
        assert {"cuda", "cpu", "cuda:0"} & strings <= {device, "cpu"}


def test_nothing_but_the_device_by_default():
    assert Plan().code() == 'pipe.to("cuda")'
    assert Plan().code(device="cuda:1") == 'pipe.to("cuda:1")'


def test_the_device_is_quoted():
    assert ast.literal_eval(Plan().code(device='c"u\nda').removeprefix("pipe.to(").removesuffix(")")) == 'c"u\nda'


def test_parts_come_in_the_order_in_which_levers_are_applied():
    marks = {
        "dtype": "torch.bfloat16",
        "tf32": "set_float32_matmul_precision",
        "channels_last": "torch.channels_last",
        "attention": "set_processor",
        "feed_forward_chunks": "in_chunks(module.forward, 4)",
        "batch_split": "in_parts(part.forward, 2)",
        "vae_slicing": "use_slicing = True",
        "vae_tiling": "enable_tiling",
        "vae_framewise": "_enable_framewise_decoding()",
        "offload": "apply_group_offloading(part",
        "text_encoders": "register_forward_pre_hook(come",
    }
    code = EVERYTHING.code()
    assert set(marks) == set(EVERYTHING.changes)
    places = [code.index(marks[lever.name]) for lever in ORDER if lever.name in marks]
    assert places == sorted(places)
    traced = TRACED.code()
    order = ("in_chunks(module.forward, 2)", "traced(part)", "in_parts(part.forward, 2)", "enable_model_cpu_offload")
    assert [traced.index(mark) for mark in order] == sorted(traced.index(mark) for mark in order)


def test_each_part_says_what_it_does_and_why():
    reasons = {name: f"because of {name}" for name in LEVERS}
    said = of_comments(EVERYTHING.model_copy(update={"reasons": reasons}).code())
    assert [name for name in LEVERS if f"; because of {name}" not in said] == ["compile"]
    assert "because" not in of_comments(EVERYTHING.code())
    assert Plan(reasons=reasons).code() == '# Everything on the device; because of offload\npipe.to("cuda")'


NASTY = (
    "a line\nimport os",
    "a line\r\nimport os",
    "a page\x0cimport os",
    "\x0b\x1c\x1d\x1e\x85\u2028\u2029import os",
    "quotes \"\"\" and ''' and \\",
    "null \x00 and half a pair \ud800",
    "$edge ${stream} {settings} %s",
    "-*- coding: utf-7 -*- +AAo-import os",
    "coding=utf-16",
    "word" * 100,
)


@pytest.mark.parametrize("reason", NASTY, ids=range(len(NASTY)))
@pytest.mark.parametrize("plan", [Plan(), EVERYTHING, TRACED], ids=words)
def test_a_reason_cannot_get_out_of_its_comment(plan, reason, tmp_path):
    reasons = dict.fromkeys(LEVERS, reason)
    code = plan.model_copy(update={"reasons": reasons}).code()
    assert ast.dump(ast.parse(code)) == ast.dump(ast.parse(plan.code()))
    assert ast.dump(ast.parse(code.encode())) == ast.dump(ast.parse(plan.code()))  # as a file, with what it declares


def test_values_that_do_not_go_together_have_no_code():
    plan = Plan(compile="trace", offload="sequential")
    with pytest.raises(PlanError) as caught:
        plan.code()
    assert str(caught.value) == conflict(plan).words(plan)


@pytest.mark.parametrize("name", ["unet", "transformer", "transformer_2", "prior", "decoder", "text_encoder", "vae",
                                  "text_encoder_3", "vqvae", "movq", "image_encoder", "controlnet", "connectors"])  # fmt: skip
def test_names_tell_the_same_roles_as_everywhere(name):
    scope = {"networks": {name: name, "text_encoder_9": ""}, "torch": None, "max": lambda *_, **__: None}
    exec(SHARED["denoisers"] + "\n" + SHARED["text_encoders"], scope)
    assert (name in scope["denoisers"]) == (role_named(name) == "denoiser")
    assert (name in scope["text_encoders"]) == (role_named(name) == "text_encoder")
    vae = 'name in ("vae", "vqvae", "movq")'
    assert vae in Plan(offload="group:leaf+stream").code()
    assert eval(vae, {"name": name}) == (role_named(name) == "vae")


def test_the_method_is_the_function():
    assert EVERYTHING.code(device="cuda:0") == code_of(EVERYTHING, device="cuda:0")
