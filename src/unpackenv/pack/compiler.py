"""Compile sources to bytecode: a program for the interpreter that will import them. unpackenv does not import it.

    python -s -S -B -W ignore compiler.py MODE FILE < sources > results

`sources` is a JSON list of [source, name for tracebacks, mtime, optimisation level]. Their bytecode goes to the new
file FILE, one after the other. `results` has a line of JSON for each: the size of the bytecode in bytes, or why the
source does not compile. Where the disk is full, the exit status is that errno. The bytes also depend on the sources
before (a string that another module shares is written differently): only the same list, in a new process with the
same PYTHONHASHSEED, gives the same bytes.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # this directory: its modules must not shadow the standard library

import errno
import gc
import importlib.util
import json
import marshal
import operator
import re
import types


def main(mode: str, path: str) -> None:
    """Compile what standard input lists into a new file."""
    gc.disable()  # compiling makes many objects and no cycles
    try:
        with open(path, "xb") as file:
            for source, name, mtime, level in json.load(sys.stdin):
                compiled = compile_file(source, name, mtime, mode, level)
                if isinstance(compiled, bytes):
                    file.write(compiled)
                    file.flush()
                print(json.dumps(len(compiled) if isinstance(compiled, bytes) else compiled), flush=True)
    except OSError as error:
        sys.exit(error.errno if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"OSError: {error}")


def compile_file(source: str, name: str, mtime: int, mode: str, level: int = 0) -> bytes | str:
    """Return the bytecode of one source, or why it does not compile. Raises `OSError`."""
    with open(source, "rb") as file:
        data = file.read()
    try:
        code = compile(data, name, "exec", dont_inherit=True, optimize=level)
        return header(data, mtime, mode) + dump(code)
    except Exception as error:  # SyntaxError, ValueError, RecursionError, MemoryError, ...: pack it uncompiled
        return f"{type(error).__name__}: {error}"[:500]


def header(data: bytes, mtime: int, mode: str) -> bytes:
    """Return the 16 bytes that say when the bytecode is valid (PEP 552)."""
    if mode == "timestamp":
        words = (0, mtime, len(data))
        return importlib.util.MAGIC_NUMBER + b"".join((word & 0xFFFFFFFF).to_bytes(4, "little") for word in words)
    flags = {"unchecked-hash": b"\1\0\0\0", "checked-hash": b"\3\0\0\0"}[mode]
    return importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(data)


# A set in a constant (`x in {None, "a"}`) is written in the order of its hashes, and the hash of None
# is its address: another one in every process. CPython 3.11 and later write such a set in the order
# of its members' bytes. For earlier ones a sorted list stands in for the set while `marshal` writes.
# Code has no lists of its own, and the mark shows where to turn one into a set again.
_MARK = b"a frozenset begins here\0"
_MARKED_LIST = re.compile(rb"\[(....)s" + re.escape(len(_MARK).to_bytes(4, "little") + _MARK), re.DOTALL)


def dump(code: types.CodeType) -> bytes:
    """Return `code` as `marshal` writes it, with the members of sets in a fixed order."""
    if sys.version_info >= (3, 11):
        return marshal.dumps(code)
    return _MARKED_LIST.sub(_as_frozenset, marshal.dumps(_with_lists(code)))


def _with_lists(code: types.CodeType) -> types.CodeType:
    constants = tuple(map(_with_list, code.co_consts))
    return code if all(map(operator.is_, constants, code.co_consts)) else code.replace(co_consts=constants)


def _with_list(constant: object) -> object:
    if isinstance(constant, types.CodeType):
        return _with_lists(constant)
    if isinstance(constant, frozenset):
        mark = bytes(bytearray(_MARK))  # a new object each time: marshal writes a second use as a reference
        return [mark, *sorted(constant, key=lambda member: marshal.dumps(member, 2))]
    return constant


def _as_frozenset(marked: re.Match[bytes]) -> bytes:
    count = int.from_bytes(marked[1], "little") - 1
    return b">" + count.to_bytes(4, "little")


if __name__ == "__main__":
    main(*sys.argv[1:])
