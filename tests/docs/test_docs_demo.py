"""What `make demo` runs, from its first word to its last."""

from __future__ import annotations

import pytest

from benchmarks import demo


@pytest.mark.slow
def test_the_demo_runs_and_restores(capsys):
    assert demo.main() == 0
    printed = capsys.readouterr().out
    for words in ("What a cap buys, simulated", "by phase, simulated", "finite", "bit-equal"):
        assert words in printed
