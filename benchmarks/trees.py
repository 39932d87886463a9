"""Generated trees of packages, the same each time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

_FILES_EACH = 20
_WORDS = 3000
_LINES = 40
_NOISE = 125_000
_NOISE_REPEATS = 4
_CHUNK = 1 << 20


def small_files(place: Path, count: int = 50_000) -> None:
    """Write `count` small files like Python sources, of up to some kilobytes, 20 in each directory."""
    chance = random.Random(count)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz_", k=chance.randint(2, 12))) for _ in range(_WORDS)]
    for number in range(count):
        package = place / "small" / f"p{number // 1000:02d}" / f"module{number // _FILES_EACH:04d}"
        if not number % _FILES_EACH:
            package.mkdir(parents=True)
        lines = int(_LINES * chance.random() ** 2 * 3)  # few are long, as it is with sources
        picked = iter(chance.choices(words, k=4 * lines))
        text = "".join(f"    {a} = {b}.{c}({d})\n" for a, b, c, d in zip(picked, picked, picked, picked))
        (package / f"{words[number % _WORDS]}{number % _FILES_EACH}.py").write_text(text)


def big_files(place: Path, libraries: Path, count: int = 3, size: int = 150_000_000) -> None:
    """Write `count` files of `size` bytes with the machine code of real shared libraries, one after the other."""
    content = _endless(sorted(path for path in libraries.rglob("*.so*") if path.is_file() and not path.is_symlink()))
    (place / "big").mkdir(parents=True)
    left_over = b""
    for number in range(count):
        with open(place / "big" / f"library{number}.so.data", "wb") as file:
            while file.tell() < size:
                data = left_over or next(content)
                room = size - file.tell()
                file.write(data[:room])
                left_over = data[room:]


def _endless(paths: list[Path]) -> Iterator[bytes]:
    """Yield the content of the files, from the first again after the last."""
    while paths:
        for path in paths:
            with open(path, "rb") as file:
                while data := file.read(_CHUNK):
                    yield data


def one_file(place: Path, megabytes: int = 300) -> None:
    """Write one file that compresses as a binary does that has long repetitions, about 1 : 8."""
    (place / "big").mkdir(parents=True)
    with open(place / "big" / "weights.bin", "wb") as file:
        noise = (random.Random(seed).randbytes(_NOISE).hex().encode() for seed in range(megabytes))
        file.writelines(piece * _NOISE_REPEATS for piece in noise)
