"""Standard Webhooks signatures (scheme v1, HMAC-SHA256). Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

_PREFIX = "whsec_"


def signing_key(secret: str) -> bytes:
    """The key bytes of `secret`: base64 after `whsec_`, else its own text. ValueError where it is neither."""
    text = secret.strip()
    if not text.startswith(_PREFIX):
        key = text.encode()
    else:
        try:
            key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("what follows whsec_ is not base64") from None
    if not key:
        raise ValueError("it is empty")
    return key


def signature(keys: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` value: one signature for each key, so that a receiver may know any of them."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{base64.b64encode(_digest(key, signed)).decode()}" for key in keys)


def _digest(key: bytes, signed: bytes) -> bytes:
    return hmac.digest(key, signed, hashlib.sha256)
