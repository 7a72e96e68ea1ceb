"""What autotune predicts beside what a card does: run with `python -m benchmarks.gpu --out DIR`."""
