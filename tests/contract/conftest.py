"""Which families the quick run takes: a UNet, a transformer, a video model. Their relatives are for the slow run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RELATIVES = frozenset({"sdxl", "sd3", "ltx"})


@pytest.hookimpl(tryfirst=True)  # before what is slow is left out
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == HERE and RELATIVES & words_in(item):
            item.add_marker(pytest.mark.slow)


def words_in(item):
    """Words among the parameters of a test, and of its fixtures."""
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    single = [value for given in values for value in (given if isinstance(given, tuple) else (given,))]
    return {value for value in single if isinstance(value, str)}


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the logger says."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("autotune")
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)
