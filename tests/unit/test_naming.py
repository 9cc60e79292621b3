"""Names of objects, and keys as subject tokens."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablewatcher.naming import key_parts, key_token, token, watcher_names

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "_"),
        ("", "_"),
        ("aZ09_-", "aZ09_-"),
        ("a.b", "a%2Eb"),
        ("é", "%C3%A9"),
        ("a,b", "a%2Cb"),
        (" >*", "%20%3E%2A"),
    ],
)
def test_token(text: str | None, expected: str) -> None:
    assert token(text) == expected


@given(text=TEXT)
def test_a_token_is_one_subject_token_and_can_be_read_back(text: str) -> None:
    made = token(text)
    assert made.isascii()
    assert made
    assert not set(made) & set(". *>,\r\n")
    assert unquote(made) == (text or "_")


@given(first=st.lists(TEXT.filter(bool), min_size=1), second=st.lists(TEXT.filter(bool), min_size=1))
def test_different_keys_are_different_tokens(first: list[str], second: list[str]) -> None:
    if first != second:
        plain = [["_" if part == "_" else part for part in key] for key in (first, second)]
        assert (key_token(tuple(first)) == key_token(tuple(second))) is (plain[0] == plain[1])


@given(key=st.lists(st.none() | TEXT, min_size=1))
def test_the_parts_of_a_key_are_read_from_its_token(key: list[str | None]) -> None:
    assert key_parts(key_token(tuple(key))) == tuple((part or "_").encode() for part in key)


@given(text=st.text(st.sampled_from("a_%2eEfF,.é")))
def test_no_parts_are_read_from_what_is_no_token(text: str) -> None:
    parts = key_parts(text)
    assert parts is None or key_token(tuple(part.decode() for part in parts)) == text


@given(parts=st.tuples(TEXT, TEXT, TEXT))
def test_object_names_are_plain_and_short(parts: tuple[str, str, str]) -> None:
    names = watcher_names(*parts)
    objects = [
        *names.rings,
        *names.cursors,
        names.ids,
        names.slot,
        names.wake,
        names.stop,
        names.function,
        names.channel,
    ]
    assert all(name.isidentifier() and name.islower() and len(name) < 64 for name in objects)
    assert names.trigger < "a"
    assert len(names.trigger) < 64
    assert len(set(objects)) == len(objects)
