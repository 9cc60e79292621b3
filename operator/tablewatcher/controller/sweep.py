"""At the operator's start: listener objects whose watchers went while no operator was there."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from .client import ApiError, Cluster
from .objects import (
    ANNOTATION_SECRET,
    GroupKey,
    ListenerSettings,
    Object,
    config_map,
    deployment,
    entry_key,
    group_name,
    selector,
)
from .references import References

log = structlog.get_logger("tablewatcher.operator")


def leftovers(maps: Iterable[Object], watchers: Iterable[Object]) -> list[tuple[Object, dict[str, str]]]:
    """The ConfigMaps with entries of watchers that are no more, each with what should stay in it. Pure."""
    present = {(each["metadata"]["namespace"], entry_key(each["metadata"]["name"])) for each in watchers}
    found = []
    for each in maps:
        content = each.get("data") or {}
        stays = {key: text for key, text in content.items() if (each["metadata"]["namespace"], key) in present}
        if stays != content or not content:
            found.append((each, stays))
    return found


async def sweep(cluster: Cluster, settings: ListenerSettings, namespaces: Iterable[str | None]) -> None:
    """Removes what is left over. A fault is logged: it can wait for the next start."""
    for namespace in namespaces:
        try:
            place = f"/namespaces/{namespace}" if namespace else ""
            # Watchers after the maps: one that comes in between is then known.
            maps = await cluster.get(f"/api/v1{place}/configmaps", labelSelector=selector(settings.instance))
            watchers = await cluster.watchers(namespace)
            for found, stays in leftovers(maps.get("items") or (), watchers):
                await _remove(cluster, settings, found, stays)
        except ApiError as error:
            log.warning("left-over listeners could not be looked for", namespace=namespace, fault=str(error))


async def _remove(cluster: Cluster, settings: ListenerSettings, found: Object, stays: dict[str, str]) -> None:
    metadata = found["metadata"]
    key = GroupKey(metadata["namespace"], (metadata.get("annotations") or {}).get(ANNOTATION_SECRET, ""))
    if metadata["name"] != group_name(settings.instance, key):
        return  # not one that we have made
    if stays:
        await cluster.apply(config_map(settings, key, stays))
    else:
        await cluster.delete(deployment(settings, key, References()))
        await cluster.delete(config_map(settings, key, {}))
    log.info("left-over listener entries removed", namespace=key.namespace, group=metadata["name"], kept=len(stays))
