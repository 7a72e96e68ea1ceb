"""What all tests share: none of them sees the profiles, or the terminal's width, of the person who runs them."""

from __future__ import annotations

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("COLUMNS", raising=False)  # what is printed is printed as into a file
        yield


@pytest.fixture(scope="session", autouse=True)
def hears_control_c():
    """A process that a shell starts in the background ignores SIGINT, and hands that down."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
