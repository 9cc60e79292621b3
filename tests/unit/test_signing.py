"""Signatures: held against the independent standardwebhooks library."""

from __future__ import annotations

import base64
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from tablewatcher.sinks.signing import signature, signing_key


def _whsec(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


@given(key=st.binary(min_size=1, max_size=64), body=st.text(max_size=200))
def test_an_independent_library_accepts_the_signature(key: bytes, body: str) -> None:
    now = int(time.time())
    document = json.dumps(body).encode()
    made = signature([signing_key(_whsec(key))], "0123abcd", now, document)
    headers = {"webhook-id": "0123abcd", "webhook-timestamp": str(now), "webhook-signature": made}
    assert Webhook(_whsec(key)).verify(document, headers) == body


def test_every_key_signs_so_that_old_and_new_receivers_accept() -> None:
    now = int(time.time())
    old, new = b"old key of a receiver", b"new key of a receiver"
    made = signature([old, new], "id", now, b"{}")
    headers = {"webhook-id": "id", "webhook-timestamp": str(now), "webhook-signature": made}
    for key in (old, new):
        Webhook(key).verify(b"{}", headers)
    assert len(made.split(" ")) == 2


def test_a_raw_secret_is_its_own_bytes_without_the_line_end_of_a_file() -> None:
    assert signing_key("s3cret\n") == b"s3cret"
    assert signing_key(_whsec(b"k") + "\n") == b"k"


@pytest.mark.parametrize("secret", ["", "  \n", "whsec_", "whsec_***"])
def test_what_is_no_key_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(ValueError) as caught:
        signing_key(secret)
    assert "***" not in str(caught.value)
