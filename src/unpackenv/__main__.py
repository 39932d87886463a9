"""`python -m unpackenv`: the wrapper if a command follows `--`, else the command line."""

import sys


def main() -> None:
    """Entry point of `python -m unpackenv` and of the console script."""
    arguments = sys.argv[1:]
    if "--" in arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "-V", "--version"):
        at = arguments.index("--")
        if arguments[at + 1 :]:
            from unpackenv.start import entrypoint

            entrypoint.run(arguments[:at], arguments[at + 1 :])
    from unpackenv import cli

    cli.main(arguments)


if __name__ == "__main__":
    # `-m` puts the working directory first on `sys.path`: a file in it could hide a module that unpackenv imports.
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]
    main()
