"""`python -m unpackenv.python`: bootstrap as the environment says, and become the interpreter with these arguments."""

import sys

if __name__ == "__main__":
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]  # of the application, not of unpackenv
    from unpackenv.start import launcher

    launcher.run({}, sys.argv[1:])
