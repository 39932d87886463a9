"""What another CPython can change, and so is run on each of them: `-m interpreter`.

How modules are found and loaded, and their byte code; what the standard library does for processes, threads, signals,
locales, options, tracebacks, tars and codecs; a start through each door; a chart by the libraries of that Python. What
it cannot change is run on one: formats byte by byte, faults of file systems, many starts at once, what reports say,
documents, containers, benchmarks.
"""

# Files, or tests by how their names begin. Not those marked as slow.
EACH_INTERPRETER = (
    "archive/test_codecs.py", "archive/test_facts.py", "archive/test_tarstream.py",
    "archive/test_writer_reader.py", "archive/test_xz_format.py", "archive/test_zstd_format.py",
    "pack/test_bytecode.py", "pack/test_distributions.py", "pack/test_kept_bytecode.py", "pack/test_runtime.py",
    "pack/test_source.py", "report/test_analyze.py::test_packages_add_up_to_what_is_there",
    "report/test_doctor.py::test_standard_library", "report/timings/test_page.py::test_what_is_on_it",
    "start/test_awkward_containers.py::test_names_that_are_not_ascii", "start/test_bootstrap.py",
    "start/test_bytecode_use.py", "start/test_cli.py::test_every_option", "start/test_cli.py::test_exit_codes",
    "start/test_cli.py::test_help", "start/test_cli.py::test_pack_unpack_and_use",
    "start/test_cli.py::test_the_version", "start/test_cli.py::test_values_that_look",
    "start/test_cli.py::test_what_was_meant", "start/test_entrypoint.py", "start/test_errors.py",
    "start/test_existing_paths.py", "start/test_foreign.py::test_a_tar_is_recognised_in_each_container_alike",
    "start/test_hook.py", "start/test_import_paths.py", "start/test_imports.py", "start/test_interpreters.py",
    "start/test_launchers.py", "start/test_limits.py", "start/test_log.py", "start/test_parallel.py",
    "start/test_process.py", "start/test_refused_processes.py", "start/test_relocate.py",
    "start/test_replaced_functions.py", "start/test_signals.py", "start/test_trace.py",
    "start/test_zstd_stdlib.py",
)  # fmt: skip
