"""A plan as plain calls of diffusers, accelerate and torch, in the order in which levers are applied: nobody is locked in.

Text only, and it imports nothing of this library. Each part says in a few lines what a file of `levers/` does with checks and a
way back; `tests/contract/test_contract_code.py` runs both and compares.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from string import Template
from typing import Any, NamedTuple

from autotune.errors import PlanError
from autotune.records import snippets
from autotune.records.plan import GroupOffload, Plan, group_offload
from autotune.records.precision import AS_IS
from autotune.records.rules import conflict

__all__ = ["code_of"]

_COMMENT_WIDTH = 108


class _Part(NamedTuple):
    """What one lever comes to."""

    lever: str
    says: str
    """What it does, for the comment."""
    body: str


def code_of(plan: Plan, *, device: str = "cuda") -> str:
    """The plan for a pipeline named `pipe`, as it was loaded, that is to run on the device.

    Raises:
        PlanError: the plan has two values that do not go together.
    """
    rule = conflict(plan)
    if rule is not None:
        raise PlanError(rule.words(plan))
    where = json.dumps(str(device))
    parts = [
        *_precision(plan),
        *(_attention(plan.attention) if plan.attention is not None else ()),
        *_denoiser(plan),
        *_vae(plan),
        _placement(plan, where),
        *_text_encoders(plan.text_encoders, where),
    ]
    used = _names_in("\n".join(part.body for part in parts))
    for name, text in reversed(snippets.SHARED.items()):  # the later ones use the first
        used |= _names_in(text) if name in used else set()
    shared = [text for name, text in snippets.SHARED.items() if name in used]
    return _joined([*_imports(used), *shared, *(_commented(part, plan.reasons.get(part.lever, "")) for part in parts)])


def _names_in(code: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}


def _imports(used: set[str]) -> list[str]:
    """The standard library's block, then the others': whole modules first, names of one module together."""
    blocks = []
    for origins in (snippets.STANDARD, snippets.OTHERS):
        whole = [f"import {name}" for name in sorted(used) if origins.get(name) == ""]
        modules = sorted({origins[name] for name in used if origins.get(name)})
        some = [f"from {m} import {', '.join(sorted(n for n in used if origins.get(n) == m))}" for m in modules]
        blocks.append("\n".join([*whole, *some]))
    return [block for block in blocks if block]


def _joined(blocks: list[str]) -> str:
    """Blocks with a line between them, two before a function."""
    text = blocks[0]
    for block in blocks[1:]:
        first = next(line for line in block.splitlines() if not line.startswith("#"))
        text += ("\n\n\n" if first.startswith(("def ", "class ")) else "\n\n") + block
    return text


def _commented(part: _Part, reason: str) -> str:
    says = part.says + (f"; {_one_line(reason)}" if part.says and reason.strip() else "")
    return "\n".join([*(f"# {line}" for line in textwrap.wrap(says, _COMMENT_WIDTH)), part.body])


def _one_line(text: str) -> str:
    """Words of others, fit for a comment: they can neither end its line nor declare an encoding (PEP 263)."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return re.sub(r"coding(?=[:=])", "coding ", " ".join(printable.split()))


def _filled(template: str, **values: Any) -> str:
    return Template(template.strip("\n")).substitute(values)


def _precision(plan: Plan) -> Iterator[_Part]:
    if plan.dtype is not None:
        says = f"Weights to {plan.dtype}, but for those that the classes of the models want in fp32"
        dtypes = {name: dtype for name, dtype in plan.dtype.items() if dtype != AS_IS}
        names = ", ".join(f'"{name}": torch.{dtype}' for name, dtype in dtypes.items())
        yield _Part("dtype", says, _filled(snippets.CAST, precision=f"{{{names}}}"))
    if plan.tf32 is not None:
        says = f"{'TF32' if plan.tf32 else 'No TF32'} for fp32 matrix products of the whole process"
        yield _Part("tf32", says, f'torch.set_float32_matmul_precision("{"high" if plan.tf32 else "highest"}")')
    if plan.channels_last is not None:
        order = "NHWC" if plan.channels_last else "NCHW"
        says = f"2-D convolutions in {order} order, each by itself: a whole network may hold 5-D weights, which refuse"
        layout, copied = ("channels_last", "contiguous") if plan.channels_last else ("contiguous_format", "clone")
        yield _Part("channels_last", says, _filled(snippets.LAYOUT, layout=layout, copied=copied))


_ATTENTION = {"sdpa": "torch's fused attention", "vanilla": "The whole score matrix", "xformers": "xFormers' attention"}
# Processors that compute the same: without and with added keys (diffusers/models/attention_processor.py).
_PROCESSORS = {
    "sdpa": ("AttnProcessor2_0", "AttnAddedKVProcessor2_0"),
    "vanilla": ("AttnProcessor", "AttnAddedKVProcessor"),
    "xformers": ("XFormersAttnProcessor", "XFormersAttnAddedKVProcessor"),
    "sliced": ("SlicedAttnProcessor", "SlicedAttnAddedKVProcessor"),
}


def _attention(value: str) -> Iterator[_Part]:
    kind, _, argument = value.partition(":")
    if kind == "sliced":
        size = argument if argument.isdecimal() else f'"{argument}"'
        yield _Part("attention", "Attention in slices", f"pipe.enable_attention_slicing({size})")
    elif kind == "backend":
        yield _dispatched(argument)
    else:
        plain, added = _PROCESSORS[kind]
        others = [names for other, names in _PROCESSORS.items() if other != kind]
        plains, addeds = (_quoted(names) for names in zip(*others, strict=True))
        body = _filled(snippets.EXCHANGE, plain=plain, added=added, plains=plains, addeds=addeds)
        yield _Part("attention", f"{_ATTENTION[kind]}, where processors compute the same otherwise", body)
        if kind == "xformers":
            yield _dispatched("xformers")


def _dispatched(backend: str) -> _Part:
    says = f"Attention by {backend}; model.set_attention_backend would also set it for every other model of the process"
    return _Part("attention", says, _filled(snippets.DISPATCH, backend=backend))


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _denoiser(plan: Plan) -> Iterator[_Part]:
    if plan.feed_forward_chunks is False:
        yield _Part("feed_forward_chunks", "Feed-forward layers of the denoiser whole", _filled(snippets.UNCHUNKED))
    if plan.feed_forward_chunks:
        chunks = plan.feed_forward_chunks
        says = f"Feed-forward layers of the denoiser in {chunks} chunks of tokens, which do not meet there"
        yield _Part("feed_forward_chunks", says, _filled(snippets.FEED_FORWARD, chunks=chunks))
    if plan.compile == "trace":
        says = "The UNet as a torch.jit trace, made at the first call of each shape"
        yield _Part("compile", says, _filled(snippets.TRACE))
    if plan.compile == "blocks":
        says = "The denoiser's repeated blocks compiled in place, at the first call of each shape"
        yield _Part("compile", says, _filled(snippets.BLOCKS))
    if plan.compile == "none":
        yield _Part("compile", "Nothing of the denoiser compiled in place", _filled(snippets.UNCOMPILED))
    if plan.batch_split:
        says = f"The denoiser's batch, guidance halves included, in {plan.batch_split} parts one after the other"
        yield _Part("batch_split", says, _filled(snippets.BATCH, parts=plan.batch_split))


def _vae(plan: Plan) -> Iterator[_Part]:
    if plan.vae_slicing is not None:
        says = f"The VAE decodes a batch {'one by one' if plan.vae_slicing else 'all together'}"
        yield _Part("vae_slicing", says, _filled(snippets.SLICING, on=plan.vae_slicing))
    if plan.vae_tiling is False:
        yield _Part("vae_tiling", "The VAE decodes the image whole", _filled(snippets.UNTILED))
    if plan.vae_tiling:
        says = f"The VAE decodes in overlapping tiles of {plan.vae_tiling} pixels"
        body = _filled(snippets.TILING, edge=plan.vae_tiling, stride=plan.vae_tiling * 3 // 4)
        yield _Part("vae_tiling", says, body)
    if plan.vae_framewise is False:
        yield _Part("vae_framewise", "The VAE decodes all frames of a video together", _filled(snippets.TOGETHER))
    if plan.vae_framewise:
        yield _Part("vae_framewise", "The VAE decodes a video in runs of frames", _filled(snippets.FRAMEWISE))


def _placement(plan: Plan, where: str) -> _Part:
    """Where weights wait; `where` is the device in quotes."""
    apart, chosen = plan.text_encoders in {"leave", "cpu"}, group_offload(plan.offload)
    if chosen is not None:
        return _grouped(chosen, where, apart=apart)
    if plan.offload == "model":
        body = f"pipe.enable_model_cpu_offload(device={where})"
        return _Part("offload", "Each network comes to the device when it is called, and leaves for the next", body)
    if plan.offload == "sequential":
        return _sequential(where)
    if apart:
        body = _filled(snippets.APART, where=where)
        return _Part("offload", "Everything but the text encoders on the device", body)
    return _Part("offload", "Everything on the device" if "offload" in plan.reasons else "", f"pipe.to({where})")


def _sequential(where: str) -> _Part:
    says = "Each layer comes to the device when it is called, and leaves after it"
    if where.startswith('"cpu'):
        says += " (network by network: without a card diffusers' own call asks for cpu:0, which fails)"
        return _Part("offload", says, _filled(snippets.SEQUENTIAL))
    body = f'pipe.to("cpu", silence_dtype_warnings=True)\npipe.enable_sequential_cpu_offload(device={where})'
    return _Part("offload", says, body)


def _grouped(chosen: GroupOffload, where: str, *, apart: bool) -> _Part:
    """Group offload by component, with the settings of `levers/offload.py`."""
    leaf, block = '"offload_type": "leaf_level"', '"offload_type": "block_level", "num_blocks_per_group": 1'
    level = block if chosen.offload_type == "block_level" else leaf
    on = [name for name, value in chosen._asdict().items() if value is True]
    stream = "stream = {" + ", ".join(f'"{name}": True' for name in on) + "}\n" if on else ""
    also = ", **stream" if on else ""
    branches = []
    if level == block and not apart:
        branches.append(('name.startswith("text_encoder")', leaf + also, "these have no list of blocks of their own"))
    if level == block:
        branches.append(("is_blockless(part)", leaf, "of these, not all weights would come"))
    if on:
        branches.append(('name in ("vae", "vqvae", "movq")', level, "no stream: tiles change the order of its layers"))
    lines = [f"    settings = {{{level}{also}}}"]
    for number, (test, settings, why) in enumerate(branches):
        lines += [f"    {'elif' if number else 'if'} {test}:  # {why}", f"        settings = {{{settings}}}"]
    first = 'if name.startswith("text_encoder"):\n        part.to("cpu")\n    elif' if apart else "if"
    blockless = snippets.BLOCKLESS if level == block else ""
    body = _filled(
        snippets.GROUPED, blockless=blockless, stream=stream, settings="\n".join(lines), first=first, where=where
    )
    says = f"Weights come to the device by {'block' if level == block else 'leaf module'}"
    return _Part("offload", says + (", text encoders apart" if apart else ""), body)


def _text_encoders(value: str | None, where: str) -> Iterator[_Part]:
    if value == "leave":
        says = "Text encoders come to the device to encode, and leave at the denoiser's first call"
        empty = "\n            torch.cuda.empty_cache()" if where.startswith('"cuda') else ""
        yield _Part("text_encoders", says, _filled(snippets.LEAVE, where=where, empty=empty))
    if value == "cpu":
        says = "Text encoders stay and run on the CPU: what goes in is brought there, what comes out to the device"
        yield _Part("text_encoders", says, _filled(snippets.STAY, where=where))
