"""A traced call is ours, not the user's: what the libraries say during it is for nobody."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._subclasses import fake_tensor

__all__ = ["quiet", "undisturbed"]


@contextmanager
def quiet() -> Iterator[None]:
    """Neither warnings nor log lines of diffusers, transformers and fakes inside; as it was afterwards."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers", fake_tensor.__name__)]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)  # torch logs an error for each operator that a fake refuses
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Neither the caller's random numbers nor his gradient modes, and nobody hears what the libraries say."""
    with quiet(), torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.no_grad():
        yield
