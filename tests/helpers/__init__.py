"""Helpers that several tests share, one module per subject: `from helpers.processes import run`.

They start processes and terminals; make trees, archives, logs and images; inject faults; run containers, by hand and
with an engine; read the documents. No module here is a test or a program. Programs are in `programs/`. Helpers that the
benchmarks also need are in `benchmarks/rig/`.
"""
