"""Measurements and the demo: run one with `python -m benchmarks.<name>`."""
