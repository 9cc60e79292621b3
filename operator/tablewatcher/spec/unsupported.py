"""Fields of the resource that are declared but not acted upon yet: refused by name, never silently ignored."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import FieldError

NOT_SUPPORTED = "not supported by this version: remove it"
GROUP_NOT_SUPPORTED = "only the group `default` is supported by this version: remove the field"
EMPTY = "is empty (null): give it a value, or remove the field"
# To name it is to ask for something, also with nothing in it.
_EMPTY_ALL_THE_SAME = {
    "spec.sink.nats.jetStream.create": "is empty (null): write create: {} to have the stream made, or remove the field"
}

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

    `objects` are the paths of the resource's own objects (`a.b`, `a.list[]`): only those are walked into, so that a
    document nested a thousand deep costs nothing.
    """
    errors: list[FieldError] = []
    return _kept(value, path, path, objects, errors), errors


def _kept(
    value: Mapping[object, object], path: str, shown: str, objects: frozenset[str], errors: list[FieldError]
) -> dict[object, object]:
    """shown: `path` with the places in lists, for errors, which are added to `errors`."""
    kept: dict[object, object] = {}
    for name, inner in value.items():
        inner_path, inner_shown = f"{path}.{name}", f"{shown}.{name}"
        items = f"{inner_path}[]"
        if name in UNSUPPORTED.get(path, frozenset()):
            errors.append(FieldError(inner_shown, NOT_SUPPORTED))
        elif inner is None:
            errors.append(FieldError(inner_shown, _EMPTY_ALL_THE_SAME.get(inner_path, EMPTY)))
        elif isinstance(inner, Mapping) and inner_path in objects:
            kept[name] = _kept(inner, inner_path, inner_shown, objects, errors)
        elif isinstance(inner, list) and items in objects:
            kept[name] = [
                _kept(item, items, f"{inner_shown}[{place}]", objects, errors) if isinstance(item, Mapping) else item
                for place, item in enumerate(inner)
            ]
        else:
            kept[name] = inner
    return kept
