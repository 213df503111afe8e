"""Measurements beside baselines: ``python -m benchmarks``; see ``docs/benchmarks.md``."""
