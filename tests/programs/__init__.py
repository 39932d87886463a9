"""What `make` runs of the tests, which is no test: what is missing here (`means`), kills for hours (`soak`), `fuzz`.

Each is run as a module, with `tests` and `benchmarks` on the path, as the Makefile does.
"""
