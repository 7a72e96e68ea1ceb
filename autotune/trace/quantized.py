"""Quantised linear layers in a trace: stand-ins that hold the stored bytes and allocate what the real kernels do.

Real layers are known by the names of their classes; none of the libraries is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from autotune.errors import PipelineError, PlanError, nearest
from autotune.trace.kernels import Layer
from autotune.trace.schemes import SCHEMES, stored_bytes
from autotune.upstream import internals

__all__ = ["QuantizedLinear", "quantized", "stand_in"]

# Where the libraries keep tensors that are neither parameters nor buffers, by the class that holds them.
_HELD = {
    "Linear8bitLt": ("state",),
    "Params4bit": ("quant_state",),
    "QuantState": ("absmax", "code", "offset", "state2"),
    "Int8Params": ("SCB",),
    "MatmulLtState": ("CB", "SCB"),
}
_TORCHAO_INT4 = {"Int4Tensor", "Int4TilePackedTo4dTensor", "Int4PlainInt32Tensor", "Int4PreshuffledTensor"}
_FLOATS = {torch.float16, torch.bfloat16, torch.float32}


class QuantizedLinear(Layer):
    """Takes the place of a quantised linear layer where nothing is computed.

    Its parameters are bytes, so that whoever looks for floating-point tensors finds those that the real layer shows.
    """

    def __init__(
        self, scheme: str, linear: Any, sizes_bytes: tuple[int, int], compute_dtype: torch.dtype, like: torch.Tensor
    ) -> None:
        super().__init__()
        self.scheme, self.compute_dtype = scheme, compute_dtype
        self.in_features, self.out_features = int(linear.in_features), int(linear.out_features)
        packed, statistics = (like.new_empty(size, dtype=torch.uint8) for size in sizes_bytes)
        self.packed = torch.nn.Parameter(packed, requires_grad=False)
        self.statistics = torch.nn.Parameter(statistics, requires_grad=False)
        self.register_parameter("bias", linear.bias)
        seen = SCHEMES[scheme].weight_dtype or compute_dtype
        self.weight = like.new_empty((1, 1), dtype=seen).expand(self.out_features, self.in_features)  # for model code

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return SCHEMES[self.scheme].kernel(self, x)


def quantized(module: torch.nn.Module, scheme: str, compute_dtype: torch.dtype) -> torch.nn.Module:
    """The weightless component, its linear layers replaced by what `scheme` would make of them.

    Raises:
        PlanError: no such scheme.
        PipelineError: the component has weights.
    """
    if scheme not in SCHEMES:
        raise PlanError(f"unknown quantisation {scheme!r}; the nearest known: {nearest(scheme, list(SCHEMES))}")
    if not all(p.is_meta or isinstance(p, torch._subclasses.FakeTensor) for p in module.parameters()):
        found = type(module).__name__
        raise PipelineError(f"{found} holds weights, which stay as they are; quantise a component of a named model")
    row_multiple, column_multiple = SCHEMES[scheme].multiples
    kept = _kept(module)
    for path, parent in list(module.named_modules()):
        for name, child in list(parent._modules.items()):
            full = f"{path}.{name}".removeprefix(".")
            if not _is_linear(child) or kept & {full, *full.split(".")}:
                continue
            if child.in_features % row_multiple == 0 and child.out_features % column_multiple == 0:
                sizes_bytes = stored_bytes(SCHEMES[scheme], child.in_features, child.out_features, compute_dtype)
                like = child.weight.detach()
                parent._modules[name] = QuantizedLinear(scheme, child, sizes_bytes, compute_dtype, like)
    module.is_quantized = True  # type: ignore[assignment]  # diffusers/quantizers/base.py preprocess_model
    return module


def _is_linear(module: Any) -> bool:
    other = torch.nn.modules.linear.NonDynamicallyQuantizableLinear  # MultiheadAttention reads its weight
    return isinstance(module, torch.nn.Linear) and not isinstance(module, other)


def _kept(module: Any) -> set[str]:
    """Names and paths that quantisers leave alone: `_keep_in_fp32_modules` everywhere (T5's `wo`); with transformers also
    output embeddings and the module of the last parameter (quantizers/base.py `get_keys_to_not_convert`)."""
    kept = set(internals.named_in_fp32(module))
    if hasattr(module, "get_output_embeddings"):
        head = module.get_output_embeddings()
        kept |= {path for path, part in module.named_modules() if head is not None and part is head}
        kept |= {name.removesuffix(".weight") for name, _ in list(module.named_parameters())[-1:]}
    return kept


def stand_in(module: torch.nn.Module) -> QuantizedLinear | None:
    """What a real quantised linear layer becomes in a trace, on the meta device; None for any other module."""
    scheme = _scheme_of(module)
    if scheme not in SCHEMES:
        return None
    weight: Any = module.weight
    stored = {tensor.untyped_storage()._cdata: tensor.numel() * tensor.itemsize for tensor in _stored(module)}
    packed_bytes, *statistics_bytes = stored.values()  # every library holds the weights first
    sizes_bytes = packed_bytes, sum(statistics_bytes)
    outward = weight.dtype if weight.dtype in _FLOATS else None
    compute_dtype = getattr(module, "compute_dtype", None) or outward or _bias_dtype(module)
    return QuantizedLinear(scheme, module, sizes_bytes, compute_dtype, torch.empty(0, device="meta"))


def _bias_dtype(module: Any) -> torch.dtype:
    """LLM.int8 keeps its bias in the dtype of the activations; it computes in float16 whatever that is."""
    dtype: torch.dtype = torch.float16 if module.bias is None else module.bias.dtype
    return dtype


def _scheme_of(module: Any) -> str:
    """The scheme's name; "" for other modules and for schemes that are not known here."""
    weight: Any = getattr(module, "weight", None)
    match type(module).__name__, type(weight).__name__:
        case "Linear4bit" | "LinearNF4" | "LinearFP4", "Params4bit":
            double = getattr(weight.quant_state, "state2", None) is not None
            return f"bitsandbytes-{weight.quant_type}" + "-double" * double
        case "Linear8bitLt", "Int8Params":
            return "bitsandbytes-int8"
        case "GGUFLinear", "GGUFParameter":
            return f"gguf-{weight.quant_type.name.lower()}"
        case "QLinear", name if name.endswith("Tensor"):
            return f"quanto-{weight._qtype.name.removeprefix('q').partition('_')[0]}"
        case "Linear", "Int8Tensor":
            return "torchao-int8wo" if weight.act_quant_kwargs is None else "torchao-int8dq"
        case "Linear", "Float8Tensor":
            return "torchao-float8wo" if weight.act_quant_kwargs is None else "torchao-float8dq"
        case "Linear", name if name in _TORCHAO_INT4:
            return "torchao-int4wo"
    return ""


def _stored(holder: Any) -> Iterator[torch.Tensor]:
    """The plain tensors that a layer stores apart from its bias."""
    if hasattr(holder, "__tensor_flatten__"):
        for name in holder.__tensor_flatten__()[0]:
            yield from _stored(getattr(holder, name))
    elif isinstance(holder, torch.Tensor):
        yield holder
    elif isinstance(holder, torch.nn.Module):
        yield from _stored(holder.weight)
        yield from (buffer for buffer in holder._buffers.values() if buffer is not None)
    for name in _HELD.get(type(holder).__name__, ()):
        yield from _stored(getattr(holder, name, None))
