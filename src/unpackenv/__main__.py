"""`python -m unpackenv`: the wrapper if there is a command behind `--`, else the command line."""

import sys


def main() -> None:
    """Entry of `python -m unpackenv` and of the console script."""
    arguments = sys.argv[1:]
    if "--" in arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "-V", "--version"):
        at = arguments.index("--")
        if arguments[at + 1 :]:
            from unpackenv.start import entrypoint

            entrypoint.run(arguments[:at], arguments[at + 1 :])
    from unpackenv import cli

    cli.main(arguments)


if __name__ == "__main__":
    # `-m` puts the working directory first, and nothing in it may run in place of a module of ours.
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]
    main()
