"""Fields of the resource that are declared but not acted upon yet: refused by name, never silently ignored."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import FieldError

NOT_SUPPORTED = "not supported by this version: remove it"
GROUP_NOT_SUPPORTED = "only the group `default` is supported by this version: remove the field"
EMPTY = "is empty (null): give it a value, or remove the field"

UNSUPPORTED: Mapping[str, frozenset[str]] = {
    "spec.listener": frozenset(
        {
            "replicas",
            "resources",
            "nodeSelector",
            "tolerations",
            "affinity",
            "topologySpreadConstraints",
            "priorityClassName",
            "serviceAccountName",
            "podLabels",
            "podAnnotations",
            "logLevel",
        }
    ),
}


def without_unsupported(
    value: Mapping[object, object], path: str, objects: frozenset[str]
) -> tuple[dict[object, object], list[FieldError]]:
    """A copy of the object at `path` without what is refused here, and one error for each such field.

    `objects` are the paths of the resource's own objects: only those are walked into, so that a document nested
    a thousand deep costs nothing.
    """
    kept: dict[object, object] = {}
    errors: list[FieldError] = []
    for name, inner in value.items():
        inner_path = f"{path}.{name}"
        if name in UNSUPPORTED.get(path, frozenset()):
            errors.append(FieldError(inner_path, NOT_SUPPORTED))
        elif inner is None:
            errors.append(FieldError(inner_path, EMPTY))
        elif isinstance(inner, Mapping) and inner_path in objects:
            kept[name], found = without_unsupported(inner, inner_path, objects)
            errors += found
        else:
            kept[name] = inner
    return kept, errors
