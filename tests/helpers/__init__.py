"""What several tests need, a module for each thing: `from helpers.processes import run`.

Processes and terminals that are started; trees, archives, logs and images that are made; faults that are injected;
containers by hand and of an engine; what the documents show. No module here is a test, and none is a program: those are
in `programs/`. What the benchmarks need too is in `benchmarks/rig/`.
"""
