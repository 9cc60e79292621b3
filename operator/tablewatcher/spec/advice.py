"""Errors of shape as people read them: the full path, what is wrong, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from pydantic_core import ErrorDetails

from ..errors import FieldError
from .schema import FIELDS

_REQUIRED = {
    "spec.table": "such as table: {schema: public, name: orders}",
    "spec.table.name": "the name of the table",
    "spec.actions": "such as actions: [insert, update, delete]",
    "spec.sink": "exactly one of nats and http",
    "spec.sink.nats.servers": "such as servers: [nats://nats.nats.svc:4222]",
    "spec.sink.nats.subject": 'such as subject: "shop.{table}.{action}"',
    "spec.sink.http.signing.secretRefs": "such as secretRefs: [{name: hook, key: whsec}]",
}
_NATS = 'nats: {servers: [nats://nats.nats.svc:4222], subject: "shop.{table}.{action}"}'
_OBJECTS = {
    "spec.database": "database: {secretRef: {name: shop-app}}",
    "spec.table": "table: {schema: public, name: orders}",
    "spec.where[]": '{column: total, operator: In, values: ["100"]}',
    "spec.sink": f"sink: {{{_NATS}}}",
    "spec.sink.nats": _NATS,
    "spec.sink.nats.jetStream": "jetStream: {stream: SHOP}",
    "spec.sink.nats.auth": "auth: {credsSecretRef: {name: nats-shop, key: user.creds}}",
    "spec.sink.http": "http: {url: https://hooks.example.com/orders}",
    "spec.sink.http.headers[]": "{name: X-Team, value: shop}",
    "spec.sink.http.signing": "signing: {secretRefs: [{name: hook, key: whsec}]}",
}
# What names a Secret, or a key in one, has these fields wherever it stands.
_REFERENCES = {("name",): "{name: shop-app}", ("name", "key"): "{name: hook, key: token}"}
_TYPES = {
    "string_type": "must be text: put it in quotes",
    "string_unicode": "must be text that can be written as UTF-8",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number without quotes",
    "int_from_float": "must be a whole number",
    "list_type": "must be a list, such as [a, b]",
    "invalid_key": "is not a field: names of fields are text",
}

# By how the names of fields end: what they count, and what people write in other places for more of it.
_UNITS = {
    "Bytes": ("bytes", {"k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}),
    "Milliseconds": ("milliseconds", {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}),
    "Seconds": ("seconds", {"s": 1, "m": 60, "h": 3600, "d": 86_400}),
}


def field_error(details: ErrorDetails) -> FieldError:
    """One error of the models in `schema.py`, with its path from `spec` on."""
    path = _path(details["loc"])
    return FieldError(path, _message(details, path))


def _path(location: Sequence[int | str]) -> str:
    path = "spec"
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path


def _message(details: ErrorDetails, path: str) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(details["loc"])
    if kind == "missing":
        hint = _REQUIRED.get(path)
        return f"required: {hint}" if hint else "required"
    if kind == "value_error":
        return str(context["error"])
    if kind == "model_type":
        return _object(_form(details["loc"]))
    if kind == "enum":
        return _choice(str(context["expected"]), details["input"])
    if kind == "int_type" and (counted := _counted(path, details["input"])):
        return counted
    return _TYPES.get(kind) or _bound(kind, context) or details["msg"]


def _counted(path: str, given: object) -> str | None:
    """For 16Mi or 10m: the number that was meant."""
    parts = re.fullmatch(r"([0-9]{1,9})([A-Za-z]{1,2})", given) if isinstance(given, str) else None
    for end, (unit, factors) in _UNITS.items():
        if parts is not None and path.endswith(end) and (factor := factors.get(parts[2])):
            return f"must be a whole number of {unit}: {int(parts[1]) * factor}, not {given}"
    return None


def _bound(kind: str, context: dict[str, object]) -> str | None:
    return {
        "greater_than_equal": f"must be at least {context.get('ge')}",
        "less_than_equal": f"must be at most {context.get('le')}",
        "string_too_long": f"must be at most {context.get('max_length')} characters long",
        "too_long": f"must have at most {context.get('max_length')} items",
        "too_short": f"must have at least {context.get('min_length')} item",
    }.get(kind)


def _form(location: Sequence[int | str]) -> str:
    """The path as `FIELDS` has it, whichever item of a list it leads through."""
    return _path(tuple("[]" if isinstance(step, int) else step for step in location)).replace(".[]", "[]")


def _object(form: str) -> str:
    """What belongs in place of a text or a number at `form`."""
    fields, field = FIELDS.get(form, ()), form.rpartition(".")[2]
    example = _OBJECTS.get(form)
    if example is None and fields in _REFERENCES:
        example = _REFERENCES[fields] if field.endswith("[]") else f"{field}: {_REFERENCES[fields]}"
    named = f"must be an object with fields of its own: {', '.join(fields)}"
    return f"{named}; such as {example}" if example else named


def _unknown(location: Sequence[int | str]) -> str:
    known = FIELDS.get(_form(location[:-1]), ())
    close = closest(str(location[-1]), known)
    return f"unknown field: did you mean {close}?" if close else f"unknown field: known are {', '.join(known)}"


def _choice(expected: str, given: object) -> str:
    """`expected` as pydantic writes it: 'insert', 'update' or 'delete'."""
    choices = expected.replace(" or ", ", ").replace("'", "").split(", ")
    close = closest(given, choices) if isinstance(given, str) else None
    return f"must be {expected.replace(chr(39), '')}" + (f": did you mean {close}?" if close else "")


def closest(given: str, choices: Sequence[str]) -> str | None:
    """The choice a person most likely meant: spelling, case and underscores forgiven."""
    plain = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(given.lower().replace("_", ""), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None
