"""Reports for people on archives, images, containers and logs, and the phrases that they share."""


def counted(number: int, noun: str) -> str:
    """Return a number of things, in words: 1 file, 2 files."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def amount(size: float) -> str:
    """Return a number of bytes, in words: 512 bytes, 4.2 kB, 98.0 MB."""
    if size < 1000:
        return counted(round(size), "byte")
    return f"{size / 1e3:.1f} kB" if size < 999_950 else f"{size / 1e6:,.1f} MB"
