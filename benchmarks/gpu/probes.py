"""What a process holds before any pipeline: the context, and the workspaces that matrix products leave behind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere

from autotune.simulate.workspace import context_bytes, cublas_bytes
from benchmarks.gpu.card import Card
from benchmarks.gpu.results import Found, attempt

__all__ = ["DTYPES", "context", "cublas"]

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_EDGE = 1024  # of the matrices: a product that no library takes as a special case


def context(card: Card, found: Found) -> None:
    """The context when nothing has run, and once kernels of every kind are loaded."""
    bare = card.bare
    found |= {"predicted_bytes": context_bytes(card.device), "source": bare.source, "bare_bytes": bare.outside_bytes}
    for dtype in DTYPES.values():
        for run in _products(card, dtype).values():
            run()
        image = torch.ones(1, 64, 64, 64, dtype=dtype, device=card.torch_device)
        F.silu(F.group_norm(F.conv2d(image, image[:, :, :3, :3].expand(64, -1, -1, -1), padding=1), 8))
        heads = image.view(1, 64, 64, 64)
        F.scaled_dot_product_attention(heads, heads, heads)
    found["warm_bytes"] = card.outside().outside_bytes


def cublas(card: Card, found: Found) -> None:
    """What stays allocated after the first product of each kind, and what it held meanwhile."""
    found["predicted_stays_bytes"] = cublas_bytes(card.device)
    found["products"] = rows = []
    for name, dtype in DTYPES.items():
        for kind in _products(card, dtype):
            row: Found = {"dtype": name, "product": kind}
            rows.append(row)
            card.empty()
            attempt(row, partial(_product, card, kind, dtype))
    if card.is_cuda:
        row = {"dtype": "float16", "product": "matmul on a second stream"}
        rows.append(row)
        with torch.cuda.stream(torch.cuda.Stream(card.torch_device)):  # type: ignore[no-untyped-call]
            attempt(row, partial(_product, card, "matmul", torch.float16))


def _product(card: Card, kind: str, dtype: torch.dtype, row: Found) -> None:
    run = _products(card, dtype)[kind]
    before_bytes = card.allocated_bytes()
    row["held_bytes"] = card.held_bytes(run)
    after_bytes = card.allocated_bytes()
    row["stays_bytes"] = None if before_bytes is None or after_bytes is None else after_bytes - before_bytes


def _products(card: Card, dtype: torch.dtype) -> dict[str, Callable[[], torch.Tensor]]:
    """Products by the calls that make them: cuBLAS, cuBLAS for batches, and cuBLASLt, which adds a bias as well."""
    matrix = torch.ones(_EDGE, _EDGE, dtype=dtype, device=card.torch_device)
    several = matrix.view(4, _EDGE // 4, _EDGE)
    return {
        "matmul": lambda: matrix @ matrix,
        "batched": lambda: several @ several.mT,
        "linear with bias": lambda: F.linear(matrix, matrix, matrix[0]),
    }
