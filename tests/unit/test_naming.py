"""Names of objects, and keys as subject tokens."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablewatcher.naming import key_token, token, watcher_names

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
