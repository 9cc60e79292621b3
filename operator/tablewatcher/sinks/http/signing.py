"""Standard Webhooks signatures (scheme v1, HMAC-SHA256). Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

_PREFIX = "whsec_"
_FORM = (
    "it must be base64, with whsec_ before it or without, as Standard Webhooks has it: make one with"
    " `openssl rand -base64 24` and give it to the receiver too; a key that both know as text goes in as its base64"
)


def signing_key(secret: str) -> bytes:
    """The key bytes of `secret`: base64, whose `whsec_` may be left out. ValueError, without the text, where it is not.

    Line ends do not count: a file ends in one, and programs break long base64 into lines.
    """
    text = "".join(line.strip() for line in secret.splitlines()).removeprefix(_PREFIX)
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one, and so is what comes of letters beyond ASCII
        raise ValueError(_FORM) from None
    if not key:
        raise ValueError(f"it is empty; {_FORM}")
    return key


def signature(keys: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` value: one signature for each key, so that a receiver may know any of them."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{base64.b64encode(_digest(key, signed)).decode()}" for key in keys)


def _digest(key: bytes, signed: bytes) -> bytes:
    return hmac.digest(key, signed, hashlib.sha256)
