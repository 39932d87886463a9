"""A package with a script."""

import itsdangerous


def main() -> None:
    """Say where the package is that it needs."""
    print(itsdangerous.__file__)
