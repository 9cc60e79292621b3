"""YAML or JSON text to documents, and which of them are watchers. Files often hold the Secret, a ConfigMap and more."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import FieldError, SpecInvalid

GROUP = "tablewatcher.io"
API_VERSION = f"{GROUP}/v1alpha1"
KIND = "TableWatcher"

NOT_A_DOCUMENT = "must be an object with apiVersion, kind, metadata and spec"

if TYPE_CHECKING:
    from yaml import SafeLoader as _Loader
else:
    # libyaml is not part of every build of PyYAML; it is some ten times faster.
    _Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Twice(yaml.constructor.ConstructorError):
    """A field that stands twice in one object."""


class _UniqueKeys(_Loader):
    """Refuses a key that stands twice in one object: the last would win, and the first be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            # A merge key (<<) may be overridden: that is what it is for.
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise _Twice(None, None, f"field {key.value!r} is there twice: {_remedy(key)}", key.start_mark)
                seen.add((key.tag, key.value))
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


def _remedy(key: yaml.ScalarNode) -> str:
    if key.value in ("apiVersion", "kind") and key.start_mark.column == 0:
        return "remove one, or put a line with --- before it where another document begins"
    return "remove one"


def watcher_documents(text: str, origin: str) -> list[object]:
    """Every document of `text` that is, or is meant to be, a TableWatcher; lists (kind List) are opened.

    Raises SpecInvalid, with line and column, where `text` is not YAML.
    """
    loaded = _json(text) or _yaml(text, origin)
    return [found for document in loaded for found in _watchers(document)]


def _json(text: str) -> list[object]:
    """The one document of a JSON text; nothing where it is none, or has a field twice.

    Most JSON is YAML too, but a character beyond U+FFFF written as two escapes, or a raw DEL, is not.
    """
    if not text.lstrip().startswith("{"):
        return []
    try:
        return [json.loads(text, object_pairs_hook=_unique)]
    except (ValueError, RecursionError):
        return []


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is there twice")
    return found


def _yaml(text: str, origin: str) -> list[object]:
    try:
        return list(yaml.load_all(text, Loader=_UniqueKeys))
    except yaml.MarkedYAMLError as error:
        raise SpecInvalid(origin, (FieldError(_position(error), _problem(error, text)),)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecInvalid(origin, (FieldError("(document)", f"is not YAML: {error}"),)) from None


def _watchers(document: object, *, nested: bool = False) -> Iterator[object]:
    # A list in a list is not opened, but refused: with aliases it could hold itself.
    if document is None:
        return
    if not isinstance(document, Mapping):
        yield document
        return
    kind, items = document.get("kind"), document.get("items")
    version = document.get("apiVersion")
    is_list = kind in ("List", f"{KIND}List") and isinstance(items, list)
    if isinstance(items, list) and is_list and not nested:
        for item in items:
            yield from _watchers(item, nested=True)
    elif (
        is_list
        or str(kind).casefold() == KIND.casefold()
        or (isinstance(version, str) and version.startswith(f"{GROUP}/"))
    ):
        yield document
    elif kind is None and "spec" in document:
        # Somebody forgot the head of a watcher more often than a file of this form is something else.
        yield document


def _position(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "(document)"


def _problem(error: yaml.MarkedYAMLError, text: str) -> str:
    problem = str(error.problem or error.context)
    if isinstance(error, _Twice):
        return problem
    lines = text.splitlines()
    mark = error.problem_mark
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    # What the library says of it, "cannot start any token", nobody understands: a tab cannot be seen.
    before = line[: mark.column + 1] if mark else ""
    if before.endswith("\t") and not before.strip():
        return "is not YAML: the line begins with a tab: indent it with spaces"
    if "{{" in line:
        return f"is not YAML: {problem}; the line has {{{{, as templates do: render the template first"
    said = f"{error.context} {problem}"
    remedy = next((remedy for sign, remedy in _REMEDIES if sign in said), _LOOK)
    return f"is not YAML: {problem}; {remedy}"


_LOOK = "look at indentation, quotes and brackets here and in the line before"
# By what stands in the words of the library, either of its two parsers; first match wins.
_REMEDIES = (
    ("alias", 'what begins with * is a reference to an anchor (&) above it: put it in quotes, as in ["*"]'),
    (
        "mapping values are not allowed",
        "put a space behind the colon of each field, put text with a colon in quotes, and look at the indentation",
    ),
)
