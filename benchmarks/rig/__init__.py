"""Shared by tests and benchmarks: things that are made once and kept, file systems, a Docker engine.

Tests and benchmarks do not import from each other. Both import from here and from `renderer`, the real workload, and
neither of these imports from them; a test checks that. The packages are in `benchmarks/`, because a benchmark runs by
its path and imports from its own directory. The tests have `benchmarks/` on their path for them alone (`pythonpath` in
pyproject.toml).
"""
