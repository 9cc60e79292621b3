"""The objects of a listener group as plain dicts: one ConfigMap, one Deployment. Pure.

A group is all watchers of one database Secret: one process, few connections. Its objects carry labels and no
ownerReferences, since garbage collection would end the listener before the ring is drained; and nothing of a
watcher's own labels, which a GitOps tool would take as its own and prune.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Reason, SpecInvalid, TableWatcherError
from ..spec.model import WatcherSpec
from ..spec.parse import parse_manifest, to_manifest
from ..spec.secrets import CONFIG_MAPS
from .references import References, of_listener

Object = dict[str, Any]

DEFAULT_GROUP = "default"
LABEL_INSTANCE = "tablewatcher.io/instance"
LABEL_GROUP = "tablewatcher.io/group"
ANNOTATION_SECRET = "tablewatcher.io/database-secret"  # noqa: S105 - the name of an annotation
ANNOTATION_CONTENT = "tablewatcher.io/content"
MAX_CONTENT_BYTES = 900 * 1024
WATCHERS_PATH = "/etc/tablewatcher/watchers"
SECRETS_PATH = "/etc/tablewatcher/secrets"
# Where a listener looks too, and no Secret can be: a mount within a Secret's would keep the Pod from starting.
CONFIG_MAPS_PATH = f"{SECRETS_PATH}/{CONFIG_MAPS[-1]}"
HTTP_PORT = 8080
GRACE_SECONDS = 30

_MAX_KEY = 253
_POD_FIELDS = ("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName")


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """How the operator was told to run listeners. `defaults`: fields of `spec.listener`, as the chart gives them."""

    image: str
    instance: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    public_only: bool = False
    http_allow: tuple[str, ...] = ()
    http_deny: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupKey:
    """Which listener: of this namespace and this database Secret."""

    namespace: str
    secret: str
    group: str = DEFAULT_GROUP


def instance_label(instance: str) -> str:
    """Any instance as the value of a label: two operators in a cluster never touch each other's groups."""
    return hashlib.sha256(instance.encode()).hexdigest()[:16]


def group_name(instance: str, key: GroupKey) -> str:
    """Name of the group's ConfigMap and Deployment."""
    identity = f"{instance}/{key.namespace}/{key.secret}/{key.group}"
    return f"tablewatcher-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def selector(instance: str) -> str:
    """Label selector of all groups of `instance`."""
    return f"app.kubernetes.io/component=listener,{LABEL_INSTANCE}={instance_label(instance)}"


def entry_key(name: str) -> str:
    """The ConfigMap key of watcher `name`; a name too long for one ends in its hash."""
    if len(name) + len(".json") <= _MAX_KEY:
        return f"{name}.json"
    return f"{name[:200]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"


def entry(spec: WatcherSpec) -> str:
    """One watcher's manifest as a compact line; equal specs give equal text."""
    return json.dumps(to_manifest(spec), separators=(",", ":"), ensure_ascii=False)


def admit(content: Mapping[str, str], spec: WatcherSpec) -> dict[str, str]:
    """`content` of a ConfigMap with `spec` in it. Raises TableWatcherError(ListenerGroupFull)."""
    merged = {**content, entry_key(spec.name): entry(spec)}
    size = sum(len(key.encode()) + len(text.encode()) for key, text in merged.items())
    if size > MAX_CONTENT_BYTES:
        raise TableWatcherError(
            Reason.LISTENER_GROUP_FULL,
            f"the manifests of all watchers of Secret {spec.database.secret_name!r} pass 900 KiB together;"
            " give some of them another Secret with the same content, so that they get a listener of their own",
        )
    return merged


def mounted(content: Mapping[str, str], key: GroupKey) -> References:
    """What the listener of `content` needs mounted. What cannot be read needs nothing."""
    specs = []
    for text in content.values():
        try:
            specs.append(parse_manifest(json.loads(text)))
        except (ValueError, SpecInvalid):
            continue
    return of_listener(specs).with_secrets(key.secret)


def content_hash(content: Mapping[str, str]) -> str:
    """Changes when the content does; written on the Pods so that the kubelet syncs them at once."""
    return hashlib.sha256(json.dumps(dict(content), sort_keys=True).encode()).hexdigest()[:16]


def config_map(settings: ListenerSettings, key: GroupKey, content: Mapping[str, str]) -> Object:
    """The manifests of a group, one key a watcher."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(settings, key),
        "data": dict(sorted(content.items())),
    }


def deployment(settings: ListenerSettings, key: GroupKey, mounts: References) -> Object:
    """The listener of a group with `mounts`. Its content is not in it: a change of manifests is no rollout."""
    labels = _labels(settings, key)
    defaults = settings.defaults
    template_metadata: Object = {"labels": {**defaults.get("podLabels", {}), **labels}}
    if defaults.get("podAnnotations"):
        template_metadata["annotations"] = dict(defaults["podAnnotations"])
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(settings, key),
        "spec": {
            "replicas": defaults.get("replicas", 1),
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": {LABEL_INSTANCE: labels[LABEL_INSTANCE], LABEL_GROUP: labels[LABEL_GROUP]}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": template_metadata, "spec": _pod(settings, key, mounts)},
        },
    }


def _pod(settings: ListenerSettings, key: GroupKey, references: References) -> Object:
    defaults = settings.defaults
    volumes: list[Object] = [{"name": "watchers", "configMap": {"name": group_name(settings.instance, key)}}]
    # Optional: a missing Secret stops its own watchers, never the Pod. No subPath: such a mount is never renewed.
    volumes += [
        {"name": f"secret-{index}", "secret": {"secretName": name, "optional": True}}
        for index, name in enumerate(references.secrets)
    ]
    volumes += [
        {"name": f"configmap-{index}", "configMap": {"name": name, "optional": True}}
        for index, name in enumerate(references.config_maps)
    ]
    pod: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(settings, references)],
        "volumes": volumes,
    }
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if defaults.get("serviceAccountName"):
        pod["serviceAccountName"] = defaults["serviceAccountName"]
    pod.update({name: defaults[name] for name in _POD_FIELDS if defaults.get(name)})
    return pod


def _container(settings: ListenerSettings, references: References) -> Object:
    arguments = ["listen", "-f", WATCHERS_PATH, "--secrets-dir", SECRETS_PATH, "--instance", settings.instance]
    arguments += ["--http-host", "0.0.0.0", "--http-port", str(HTTP_PORT)]  # noqa: S104 - probes and scrapes come from outside
    if settings.public_only:
        arguments.append("--http-public-only")
    arguments += [f"--http-allow={place}" for place in settings.http_allow]
    arguments += [f"--http-deny={place}" for place in settings.http_deny]
    mounts: list[Object] = [{"name": "watchers", "mountPath": WATCHERS_PATH, "readOnly": True}]
    mounts += [
        {"name": f"secret-{index}", "mountPath": f"{SECRETS_PATH}/{name}", "readOnly": True}
        for index, name in enumerate(references.secrets)
    ]
    mounts += [
        {"name": f"configmap-{index}", "mountPath": f"{CONFIG_MAPS_PATH}/{name}", "readOnly": True}
        for index, name in enumerate(references.config_maps)
    ]
    # /readyz tells of the watchers: one that cannot forward must not make the whole group unavailable.
    probe: Object = {"httpGet": {"path": "/healthz", "port": "http"}}
    container: Object = {
        "name": "listener",
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["tablewatcher"],
        "args": arguments,
        "ports": [{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}],
        "livenessProbe": {**probe, "initialDelaySeconds": 10, "periodSeconds": 10, "timeoutSeconds": 5},
        "readinessProbe": {**probe, "periodSeconds": 2, "timeoutSeconds": 5},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    if settings.defaults.get("resources"):
        container["resources"] = settings.defaults["resources"]
    return container


def _labels(settings: ListenerSettings, key: GroupKey) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "tablewatcher",
        "app.kubernetes.io/component": "listener",
        "app.kubernetes.io/managed-by": "tablewatcher-operator",
        LABEL_INSTANCE: instance_label(settings.instance),
        LABEL_GROUP: group_name(settings.instance, key),
    }


def _metadata(settings: ListenerSettings, key: GroupKey) -> Object:
    return {
        "name": group_name(settings.instance, key),
        "namespace": key.namespace,
        "labels": _labels(settings, key),
        "annotations": {ANNOTATION_SECRET: key.secret},
    }
