"""A manifest to a `WatcherSpec`, with every mistake told at once.

No I/O here: whoever reads files, a ConfigMap or the API server hands the document in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from ..errors import FieldError, SpecInvalid
from . import checks
from .advice import NOT_TEXT, closest, field_error
from .documents import API_VERSION, KIND, NOT_A_DOCUMENT, watcher_documents
from .model import WatcherSpec
from .render import to_manifest
from .rules import cross_field_errors
from .schema import FIELDS, SpecShape
from .unsupported import without_unsupported
from .values import watcher

__all__ = ["API_VERSION", "KIND", "MAX_BYTES", "parse_manifest", "read_manifests", "to_manifest"]

MAX_BYTES = 32 * 1024
MAX_GENERATION = 2**63 - 1
TOO_LARGE = "is larger than 32 KiB: name fewer columns, or split it into several watchers"

# As kubectl has it, of a manifest that names none.
_NAMESPACE = "default"
_TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec", "status")
_OBJECTS = frozenset(FIELDS)


@dataclass(frozen=True, slots=True)
class _Metadata:
    namespace: str
    name: str
    generation: int
    errors: tuple[FieldError, ...]


def parse_manifest(document: object, *, require_secret: bool = True) -> WatcherSpec:
    """One TableWatcher as a person wrote it, or as the API server returns it. One without a namespace is in `default`.

    `require_secret` False: `spec.database.secretRef` may be absent (the DSN comes from elsewhere); the name of the
    Secret is "" then. Raises SpecInvalid with every error there is.
    """
    if not isinstance(document, Mapping):
        raise SpecInvalid(KIND, (FieldError("(document)", NOT_A_DOCUMENT),))
    metadata = _metadata(document.get("metadata"))
    shape, errors = _shape(document, require_secret)
    errors = [*_envelope(document), *metadata.errors, *errors]
    if errors or shape is None:
        name = f"{metadata.namespace}/{metadata.name}" if metadata.name else KIND
        raise SpecInvalid(name, _one_per_path(errors))
    return watcher(metadata.namespace, metadata.name, metadata.generation, shape)


def read_manifests(
    text: str, origin: str, *, require_secret: bool = True
) -> tuple[list[WatcherSpec], SpecInvalid | None]:
    """Every good TableWatcher of a YAML text, in order, and all the mistakes of the others.

    Documents of other kinds are left alone. `origin` (a file's name, say) stands in the errors.
    """
    found: list[WatcherSpec] = []
    faults: list[SpecInvalid] = []
    try:
        documents = watcher_documents(text, origin)
    except SpecInvalid as fault:
        return [], fault
    for document in documents:
        try:
            found.append(parse_manifest(document, require_secret=require_secret))
        except SpecInvalid as fault:
            faults.append(fault)
    if len(faults) == 1:
        return found, SpecInvalid(f"{origin}: {faults[0].name}", faults[0].errors)
    if faults:
        return found, SpecInvalid(origin, tuple(_named(fault, error) for fault in faults for error in fault.errors))
    return found, None


def _named(fault: SpecInvalid, error: FieldError) -> FieldError:
    return FieldError(f"{fault.name}: {error.path}", error.message)


def _envelope(document: Mapping[object, object]) -> list[FieldError]:
    errors = [
        FieldError(name, f"must be {expected}")
        for name, expected in (("apiVersion", API_VERSION), ("kind", KIND))
        if document.get(name) != expected
    ]
    for name in document:
        if name not in _TOP_LEVEL:
            close = closest(str(name), (*_TOP_LEVEL, *FIELDS["spec"]))
            place = f"spec.{close}" if close in FIELDS["spec"] else close
            advice = f"did you mean {place}?" if close else "fields of a watcher stand under spec"
            errors.append(FieldError(str(name), f"unknown field: {advice}"))
    return errors


def _metadata(found: object) -> _Metadata:
    if not isinstance(found, Mapping):
        error = FieldError("metadata.name", "required: the name of the watcher, such as orders")
        return _Metadata(_NAMESPACE, "", 0, (error,))
    errors: list[FieldError] = []
    name, namespace = found.get("name"), found.get("namespace") or _NAMESPACE
    generation = found.get("generation", 0)
    if name is None:
        errors.append(FieldError("metadata.name", "required: the name of the watcher, such as orders"))
    elif not checks.holds(checks.dns_name, name):
        errors.append(FieldError("metadata.name", checks.DNS_NAME if isinstance(name, str) else NOT_TEXT))
    if not checks.holds(checks.dns_label, namespace):
        errors.append(FieldError("metadata.namespace", checks.DNS_LABEL if isinstance(namespace, str) else NOT_TEXT))
    if not isinstance(generation, int) or isinstance(generation, bool) or not 0 <= generation <= MAX_GENERATION:
        errors.append(FieldError("metadata.generation", "must be a whole number from 0 on: remove it"))
        generation = 0
    # Only text is shown: a list that aliases make a gigabyte long would be written out here.
    shown = name if isinstance(name, str) else ""
    return _Metadata(namespace if isinstance(namespace, str) else "?", shown, generation, tuple(errors))


def _shape(document: Mapping[object, object], require_secret: bool) -> tuple[SpecShape | None, list[FieldError]]:
    written = document.get("spec")
    if not isinstance(written, Mapping):
        return None, [FieldError("spec", "required: an object with database, table, actions and sink")]
    if _too_large(written):
        return None, [FieldError("spec", TOO_LARGE)]
    kept, refused = without_unsupported(written, "spec", _OBJECTS)
    errors: list[FieldError] = []
    try:
        shape = SpecShape.model_validate(kept)
    except ValidationError as invalid:
        shape = None
        errors += [field_error(details) for details in invalid.errors(include_url=False)]
    errors += cross_field_errors(kept, require_secret=require_secret)
    # Of what is empty and required that it is required: it cannot be removed.
    return shape, errors + refused


def _too_large(spec: Mapping[object, object]) -> bool:
    """Whether `spec` as JSON passes the bound, found without following shared parts for ever."""
    left = MAX_BYTES
    open_nodes: list[object] = [spec]
    while open_nodes and left >= 0:
        node = open_nodes.pop()
        # Quotes or braces, and the comma or colon that follows.
        left -= 3
        if isinstance(node, str):
            left -= len(node.encode("utf-8", "surrogatepass"))
        elif isinstance(node, Mapping):
            open_nodes += [*node.keys(), *node.values()]
        elif isinstance(node, list):
            open_nodes += node
    return left < 0


def _one_per_path(errors: list[FieldError]) -> tuple[FieldError, ...]:
    """Errors in the order of their paths, the first of each path only: the rest tends to follow from it."""
    first: dict[str, FieldError] = {}
    for error in errors:
        first.setdefault(error.path, error)
    return tuple(first[path] for path in sorted(first))
