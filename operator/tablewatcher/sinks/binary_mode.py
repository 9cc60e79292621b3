"""CloudEvents binary mode: context attributes as `ce-*` headers, the same way for NATS and HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping

PREFIX = "ce-"

_PLAIN = re.compile(r"[!#$&-~]*\Z")


def header_value(text: str) -> str:
    """`text` as a header value: space, `"`, `%` and all outside printable ASCII become `%XX` per UTF-8 byte.

    The encoded form holds no line end, so a value can never start a header of its own.
    """
    if _PLAIN.match(text):
        return text
    return "".join(
        chr(byte) if 0x21 <= byte <= 0x7E and byte not in b'"%' else f"%{byte:02X}" for byte in text.encode()
    )


def ce_headers(attributes: Mapping[str, str]) -> dict[str, str]:
    """One `ce-<name>` header for each context attribute."""
    return {PREFIX + name: header_value(value) for name, value in attributes.items()}
