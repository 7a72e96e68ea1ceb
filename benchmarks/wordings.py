"""What a record calls its settings, and what that means: compilers, offloading, quantisation."""

from __future__ import annotations

import re

from autotune.simulate.latency import Code
from benchmarks.measured import Skip, SkippedError

__all__ = ["code_of", "offload_of", "quantization_of"]

_OFFLOADS = {"none": "none", "model_cpu_offload": "model", "sequential_cpu_offload": "sequential"}
_QUANTISERS = r"bitsandbytes|bnb|torchao|quanto|gguf"
# Other names of schemes: torchao's README means dynamic activations where it says "fp8" alone, per row or per tensor.
_SCHEMES = {
    "bnb-nf4": "bitsandbytes-nf4",
    "torchao-fp8wo": "torchao-float8wo",
    **dict.fromkeys(("torchao-fp8", "torchao-fp8dq", "torchao-fp8dqrow"), "torchao-float8dq"),
    "quanto-fp8": "quanto-float8",
}
# How records word it, the first that is found. "max-autotune" is inductor with autotuned kernels in CUDA graphs, and without
# graphs little more than its default mode: autotuning changes the matrix products alone.
_CODES: tuple[tuple[str, Code], ...] = (
    (r"^none$", "none"),
    (r"jit\.trace", "trace"),
    (r"repeated_blocks|regional", "blocks"),
    (r"^reduce-overhead", "graphs"),
    (r"max-autotune-no-cudagraphs", "whole"),
    (r"^max-autotune", "tuned"),
    (r"^(default|yes|torch\.compile)\b", "whole"),
)


def code_of(said: str) -> Code:
    """How the denoiser's code was compiled, for example for "reduce-overhead fullgraph".

    Raises:
        SkippedError: the wording is not known.
    """
    found = next((code for pattern, code in _CODES if re.search(pattern, said)), None)
    if found is None:
        raise SkippedError(Skip.NOT_STATED, f"compile {said}")
    return found


def offload_of(said: str) -> str:
    """The lever's value, for example for "model_cpu_offload".

    Raises:
        SkippedError: the wording is not known.
    """
    if said in _OFFLOADS:
        return _OFFLOADS[said]
    group = re.match(r"group_offload (leaf|block)_level( use_stream)?", said)
    if group:
        return f"group:{group.group(1)}" + ("+stream" if group.group(2) else "")
    raise SkippedError(Skip.NOT_STATED, f"offload {said}")


def quantization_of(said: str) -> tuple[tuple[str, str], ...]:
    """Pairs of a part and a scheme, for example of "quanto fp8 transformer+TE1,2" and "GGUF Q4_1 transformer only".

    Raises:
        SkippedError: a scheme that is not known.
    """
    if said == "none":
        return ()
    from autotune.trace.schemes import SCHEMES

    pairs: list[tuple[str, str]] = []
    for piece in re.split(rf"\s\+\s(?=(?:{_QUANTISERS})\b)", said):
        match = re.match(rf"({_QUANTISERS})[ -](\S+)\s*(.*)", piece, re.IGNORECASE)
        name = f"{match.group(1)}-{match.group(2)}".lower() if match else ""
        name = _SCHEMES.get(name, name)
        if match is None or name not in SCHEMES:
            raise SkippedError(Skip.NOT_STATED, f"quantization {said}")
        pairs += [(part, name) for part in _quantised(match.group(3).lower())]
    return tuple(pairs)


def _quantised(where: str) -> list[str]:
    """Parts of a pipeline as a record names them; the denoiser where it names none."""
    encoders = {part for part, words in (("T5", r"\bt5\b"), ("TE", r"\bte\b|text encoder")) if re.search(words, where)}
    numbered = {f"TE{number}" for several in re.findall(r"\bte(\d(?:,\d)*)", where) for number in several.split(",")}
    only_encoders = (encoders or numbered) and not re.search("transformer|unet", where)
    return [*([] if only_encoders else ["denoiser"]), *sorted(encoders | numbered)]
