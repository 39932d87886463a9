"""Programs of the tests that `make` runs: `means` lists what is missing here, `soak` kills starts for hours, `fuzz`.

Each runs as a module, with `tests` and `benchmarks` on the path, as the Makefile does.
"""
