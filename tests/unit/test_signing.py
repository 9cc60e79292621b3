"""Signatures: held against the independent standardwebhooks library."""

from __future__ import annotations

import base64
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from tablewatcher.sinks.http.signing import signature, signing_key


def _whsec(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


@given(key=st.binary(min_size=1, max_size=64), prefix=st.sampled_from(["whsec_", ""]), body=st.text(max_size=200))
def test_an_independent_library_accepts_the_signature(key: bytes, prefix: str, body: str) -> None:
    now = int(time.time())
    document = json.dumps(body).encode()
    secret = prefix + base64.b64encode(key).decode()
    made = signature([signing_key(secret)], "0123abcd", now, document)
    headers = {"webhook-id": "0123abcd", "webhook-timestamp": str(now), "webhook-signature": made}
    assert Webhook(secret).verify(document, headers) == body


def test_every_key_signs_so_that_old_and_new_receivers_accept() -> None:
    now = int(time.time())
    old, new = b"old key of a receiver", b"new key of a receiver"
    made = signature([old, new], "id", now, b"{}")
    headers = {"webhook-id": "id", "webhook-timestamp": str(now), "webhook-signature": made}
    for key in (old, new):
        Webhook(key).verify(b"{}", headers)
    assert len(made.split(" ")) == 2


def test_line_ends_of_files_and_programs_are_no_part_of_a_key() -> None:
    assert signing_key(_whsec(b"k") + "\n") == b"k"
    # As `openssl rand -base64 64` prints it.
    lines = base64.encodebytes(b"k" * 64).decode()
    assert lines.count("\n") == 2
    assert signing_key(lines) == signing_key("whsec_" + lines) == b"k" * 64


@pytest.mark.parametrize(
    "secret", ["", "  \n", "whsec_", "whsec_***", "***", "plain text secrets", "cGxhaW4", "clé secrète", "whsec_clé"]
)
def test_what_is_no_key_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(ValueError) as caught:
        signing_key(secret)
    text = secret.strip().removeprefix("whsec_")
    assert not text or text not in str(caught.value)
    assert "openssl rand -base64 24" in str(caught.value)
