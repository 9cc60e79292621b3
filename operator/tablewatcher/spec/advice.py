"""Errors of shape as people read them: the full path, what is wrong, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from decimal import Decimal

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
    "spec.sink.http.headers[].valueFrom.secretKeyRef": "such as secretKeyRef: {name: hook, key: token}",
    "spec.where[].operator": "In, NotIn, GreaterThan, LessThan, IsNull or IsNotNull",
}
_NATS = 'nats: {servers: [nats://nats.nats.svc:4222], subject: "shop.{table}.{action}"}'
_OBJECTS = {
    "spec.database": "database: {secretRef: {name: shop-app}}",
    "spec.table": "table: {schema: public, name: orders}",
    "spec.where[]": '{column: total, operator: In, values: ["100"]}',
    "spec.sink": f"sink: {{{_NATS}}}",
    "spec.sink.nats": _NATS,
    "spec.sink.nats.jetStream": "jetStream: {stream: SHOP}",
    "spec.sink.nats.jetStream.create": "create: {}",
    "spec.sink.nats.auth": "auth: {credsSecretRef: {name: nats-shop, key: user.creds}}",
    "spec.sink.http": "http: {url: https://hooks.example.com/orders}",
    "spec.sink.http.headers[]": "{name: X-Team, value: shop}",
    "spec.sink.http.signing": "signing: {secretRefs: [{name: hook, key: whsec}]}",
}
_LISTS = {
    "spec.actions": "actions: [insert, update, delete]",
    "spec.columns": 'columns: [status, total], or ["*"] for the whole row',
    "spec.triggerColumns": "triggerColumns: [status]",
    "spec.where": 'where: [{column: total, operator: GreaterThan, values: ["100"]}]',
    "spec.where[].values": 'values: ["100"]',
    "spec.sink.nats.servers": "servers: [nats://nats.nats.svc:4222]",
    "spec.sink.http.headers": "headers: [{name: X-Team, value: shop}]",
    "spec.sink.http.signing.secretRefs": "secretRefs: [{name: hook, key: whsec}]",
}
# What names a Secret, or a key in one, has these fields wherever it stands.
_REFERENCES = {("name",): "{name: shop-app}", ("name", "key"): "{name: hook, key: token}"}
NOT_TEXT = "must be text: put it in quotes"
_TYPES = {
    "string_type": NOT_TEXT,
    "string_unicode": "must be text that can be written as UTF-8",
    "bool_type": "must be true or false",
    "int_from_float": "must be a whole number",
    "invalid_key": "is not a field: names of fields are text",
}

# By how the names of fields end: what they count, and what people write in other places for more of it.
_UNITS = {
    "Bytes": ("bytes", {"k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}),
    "Milliseconds": ("milliseconds", {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000}),
    "Seconds": ("seconds", {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}),
}
_QUANTITY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([A-Za-z]{1,3})")
# What people who know SQL or another tool write for an operator.
_OPERATORS = {">": "GreaterThan", "gt": "GreaterThan", "<": "LessThan", "lt": "LessThan"} | dict.fromkeys(
    ("=", "==", "eq", "equals", "equal"), "In"
)
_OPERATORS |= dict.fromkeys(("!=", "<>", "ne", "notequals", "notequal"), "NotIn")
# What people write for it where it is not: in the manifest itself.
_CONNECTION = frozenset(
    {"uri", "url", "dsn", "host", "port", "user", "username", "password", "name", "dbname", "database"}
)
_NO_CONNECTION = (
    "unknown field: a manifest holds no connection; name the Secret that does in secretRef, or on the command line give"
    " --dsn"
)


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
        hint = _REQUIRED.get(_form(details["loc"]))
        return f"required: {hint}" if hint else "required"
    if kind == "value_error":
        return str(context["error"])
    if kind == "model_type":
        return _object(_form(details["loc"]))
    if kind == "enum":
        return _choice(str(context["expected"]), details["input"])
    if kind == "int_type":
        return _number(path, details["input"])
    if kind == "list_type":
        return f"must be a list, such as {_LISTS.get(_form(details['loc']), '[a, b]')}"
    return _TYPES.get(kind) or _bound(kind, context) or details["msg"]


def _number(path: str, given: object) -> str:
    """For what is no whole number: what it should have been, for 16Mi or 10m the number that was meant."""
    if not isinstance(given, str):
        return "must be a whole number"
    if given.isdigit():
        return "must be a whole number without quotes"
    unit, factors = next((each for end, each in _UNITS.items() if path.endswith(end)), ("", {}))
    named = f"must be a whole number{f' of {unit}' if unit else ''}"
    parts = _QUANTITY.fullmatch(given)
    # Of bytes people write kB, MB, MiB too, and in any case.
    word = parts[2].lower() if parts else ""
    factor = factors.get(word) or (factors.get(word.removesuffix("b")) if unit == "bytes" else None)
    meant = Decimal(parts[1]) * factor if parts and factor else Decimal("NaN")
    return f"{named}: {meant:.0f}, not {given}" if meant == meant.to_integral_value() else f"{named}, in digits alone"


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
    form, known = _form(location[:-1]), FIELDS.get(_form(location[:-1]), ())
    if form == "spec.database" and str(location[-1]).lower() in _CONNECTION:
        return _NO_CONNECTION
    close = closest(str(location[-1]), known)
    return f"unknown field: did you mean {close}?" if close else f"unknown field: known are {', '.join(known)}"


def _choice(expected: str, given: object) -> str:
    """`expected` as pydantic writes it: 'insert', 'update' or 'delete'."""
    choices = expected.replace(" or ", ", ").replace("'", "").split(", ")
    close = None
    if isinstance(given, str):
        meant = _OPERATORS.get(given.lower())
        close = meant if meant in choices else closest(given, choices)
    return f"must be {expected.replace(chr(39), '')}" + (f": did you mean {close}?" if close else "")


def closest(given: str, choices: Sequence[str]) -> str | None:
    """The choice a person most likely meant: spelling, case and underscores forgiven."""
    plain = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(given.lower().replace("_", ""), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None
