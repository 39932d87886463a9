"""Shared by tests and benchmarks: things that are made once and kept, file systems, a Docker engine, the renderer.

Tests and benchmarks do not import from each other. Both import from here, and nothing here imports from them; a test
checks that. The package is in `benchmarks/`, because a benchmark runs by its path and imports from its own directory.
The tests have `benchmarks/` on their path for this package alone (`pythonpath` in pyproject.toml).
"""
