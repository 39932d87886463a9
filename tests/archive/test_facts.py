"""The text form of facts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unpackenv.archive import facts
from unpackenv.errors import ArchiveCorrupt

# What `os.fsdecode` can return, for any bytes.
VALUES = st.binary(max_size=30).map(lambda raw: raw.decode("utf-8", "surrogateescape")) | st.text(
    st.sampled_from("\\nr\n\r=ab\x85\u2028"), max_size=12
)
KEYS = st.text(st.characters(min_codepoint=45, max_codepoint=122, blacklist_characters="=\\"), min_size=1, max_size=8)


@settings(max_examples=200)
@given(st.dictionaries(KEYS, st.lists(VALUES, min_size=1, max_size=3), max_size=5))
def test_what_was_encoded_is_decoded(some: dict[str, list[str]]) -> None:
    assert facts.decode(facts.encode(some)) == some


def test_the_text_is_what_the_format_document_says() -> None:
    text = facts.encode({"codec": ["xz"], "import": ["", "lib/a\nb"], "target": ["C:\\new\r=\udcff"]})
    assert text == b"codec=xz\nimport=\nimport=lib/a\\nb\ntarget=C:\\\\new\\r=\xff\n"


def test_a_key_without_values_leaves_no_trace() -> None:
    assert facts.encode({"bin": []}) == b""
    assert facts.decode(b"") == {}


@pytest.mark.parametrize("text", [b"no equals sign\n", b"a=1\n\nb=2\n", b"a=1\nb=2", b"a"])
def test_what_is_no_line_of_facts_is_refused(text: bytes) -> None:
    with pytest.raises(ArchiveCorrupt):
        facts.decode(text)


def test_the_first_value_or_the_default() -> None:
    some = {"import": ["one", "two"], "none": []}
    assert facts.first(some, "import") == "one"
    assert facts.first(some, "none", "default") == "default"
    assert facts.first(some, "absent") == ""
