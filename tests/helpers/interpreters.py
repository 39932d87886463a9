"""What another CPython can change, and so is run on the oldest one, too: `-m interpreter`; on the newest `-m newest`.

How modules are found and loaded, and their byte code; what the standard library does for processes, threads, signals,
locales, options, tracebacks, tars and codecs; a start through each door; a chart by the libraries of that Python. What
it cannot change is run on one: formats byte by byte, faults of file systems, many starts at once, what reports say,
documents, containers, benchmarks.
"""

# Files, or tests by how their names begin. Not those marked as slow.
EACH_INTERPRETER = (
    "archive/test_codecs.py", "archive/test_facts.py", "archive/test_tarstream.py",
    "archive/test_writer_reader.py",
    "pack/test_bytecode.py", "pack/test_distributions.py", "pack/test_kept_bytecode.py",
    "pack/test_runtime.py::test_starts_an_archive", "pack/test_runtime.py::test_another_interpreter",
    "pack/test_runtime.py::test_a_read_only",
    "pack/test_source.py", "report/test_analyze.py::test_packages_add_up_to_what_is_there",
    "report/test_doctor.py::test_standard_library", "report/timings/test_page.py::test_what_is_on_it",
    "start/test_awkward_containers.py::test_names_that_are_not_ascii", "start/test_bootstrap.py",
    "start/test_bytecode_use.py", "start/test_cli.py::test_every_option", "start/test_cli.py::test_exit_codes",
    "start/test_cli.py::test_help", "start/test_cli.py::test_pack_unpack_and_use",
    "start/test_cli.py::test_the_version", "start/test_cli.py::test_values_that_look",
    "start/test_cli.py::test_what_was_meant", "start/test_entrypoint.py", "start/test_errors.py",
    "start/test_existing_paths.py",
    "start/test_fill.py::test_the_tree_becomes_that_of_a_start_that_fills_before[zstd",
    "start/test_fill.py::test_programs_scripts_and_modules[zstd", "start/test_fill_places.py::test_processes_of",
    "pack/test_sources.py::test_every_module_is_found",
    "start/test_foreign.py::test_a_tar_is_recognised_in_each_container_alike",
    "start/test_hook.py", "start/test_import_paths.py", "start/test_imports.py", "start/test_interpreters.py",
    "start/test_launchers.py", "start/test_limits.py", "start/test_log.py", "start/test_parallel.py",
    "start/test_process.py", "start/test_registry.py::test_a_start_that_finds",
    "start/test_remote.py::test_a_start_by_url", "start/test_remote.py::test_names_first",
    "start/test_remote.py::test_the_application_has_no_modules", "start/test_remote.py::test_what_stays_wrong",
    "start/test_remote.py::test_a_proxy", "start/test_remote.py::test_https",
    "start/test_remote.py::test_an_application_that_has_replaced_sockets",
    "start/test_refused_processes.py", "start/test_relocate.py", "start/test_replaced_functions.py",
    "start/test_signals.py", "start/test_trace.py", "start/test_zstd_stdlib.py",
)  # fmt: skip

# Of these files, what no interpreter changes.
ON_ONE = (
    "archive/test_codecs.py::test_a_codec_more", "archive/test_codecs.py::test_a_runtime_for_a_codec_more",
    "archive/test_codecs.py::test_columns", "archive/test_facts.py::test_what_was_encoded",
    "archive/test_tarstream.py::test_damage", "archive/test_writer_reader.py::test_any_tree",
    "archive/test_writer_reader.py::test_a_file_over_4_gib", "pack/test_bytecode.py::test_same_bytes_with_any_number",
    "pack/test_kept_bytecode.py::test_two_builds", "start/test_bootstrap.py::test_a_bad_value",
    "start/test_bootstrap.py::test_default_of_a_user_without_a_name",
    "start/test_bytecode_use.py::test_nothing_is_said_where_it_is_used[", "start/test_cli.py::test_help_fits",
    "start/test_errors.py::test_a_refused_target_says_who_named_it", "start/test_hook.py::test_pip_does_not",
    "start/test_log.py::test_json_as_others", "start/test_log.py::test_many_processes",
    "start/test_log.py::test_a_file_that_cannot_be_written", "start/test_log.py::test_throttl",
    "start/test_log.py::test_the_line_says_who_named", "start/test_parallel.py::test_any_tree",
    "start/test_process.py::test_memory_is_given_back", "start/test_signals.py::test_a_stop_is_prompt",
    "start/test_signals.py::test_a_mount_is_empty", "start/test_zstd_stdlib.py::test_damage",
    "start/test_imports.py::test_arrows_point_one_way",
)  # fmt: skip

# What is run on the newest one, too: how modules, bytecode, tars and options are found and read, and a start through
# each door.
NEWEST = (
    "archive/test_codecs.py::test_frames_decode", "archive/test_writer_reader.py::test_stock_tar",
    "pack/test_bytecode.py", "pack/test_kept_bytecode.py", "pack/test_runtime.py", "pack/test_source.py",
    "pack/test_sources.py", "report/timings/test_page.py", "start/test_bootstrap.py", "start/test_bytecode_use.py",
    "start/test_cli.py", "start/test_entrypoint.py", "start/test_errors.py", "start/test_fill.py",
    "start/test_foreign.py", "start/test_hook.py::test_a_published", "start/test_hook.py::test_the_first_interpreter",
    "start/test_import_paths.py", "start/test_imports.py", "start/test_launchers.py", "start/test_process.py",
    "start/test_remote.py", "start/test_replaced_functions.py", "start/test_signals.py::test_the_library_stops",
    "start/test_trace.py", "start/test_zstd_stdlib.py",
)  # fmt: skip
