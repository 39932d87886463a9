"""What tests and benchmarks both need: things that are made once and kept, file systems, a Docker engine, the renderer.

Neither imports from the other; both import from here, and nothing here imports from them. A test holds that.
It lies below `benchmarks/`, because a benchmark is run by its path, and then imports what is beside it. The tests have
`benchmarks/` on their path for this package alone (`pythonpath` in pyproject.toml).
"""
