"""What looks at archives, images, containers and logs for people, and the words that its reports have in common."""


def counted(number: int, noun: str) -> str:
    """Return a number of things, in words: 1 file, 2 files."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
