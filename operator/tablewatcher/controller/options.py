"""The operator's options: flags, each with an environment variable of the same name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__


@dataclass(frozen=True, slots=True)
class Options:
    """namespaces: () = cluster-wide. instance: None = UID of namespace kube-system. listener: fields of
    `spec.listener` that hold where a watcher sets none."""

    listener_image: str
    namespaces: tuple[str, ...]
    instance: str | None
    image_pull_policy: str
    image_pull_secrets: tuple[str, ...]
    http_host: str
    http_port: int
    listener: Mapping[str, Any]
    require_secret_label: bool
    http_public_only: bool
    http_allow: tuple[str, ...]
    http_deny: tuple[str, ...]
    log_level: str


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Options from the command line, then from `TABLEWATCHER_*`. Ends the process with advice where they are wrong."""

    def preset(name: str, default: str = "") -> str:
        return environment.get(f"TABLEWATCHER_{name}") or default

    parser = argparse.ArgumentParser("tablewatcher-operator", description="Runs the TableWatcher operator.")
    add = parser.add_argument
    parser.add_argument("--version", action="version", version=__version__)
    add("--namespace", action="append", help="Namespace to serve; repeatable. None: all. [TABLEWATCHER_NAMESPACES]")
    add("--instance", default=preset("INSTANCE"), help="Who we are. Default: the UID of namespace kube-system.")
    add("--listener-image", default=preset("LISTENER_IMAGE"), help="Image of the listener Pods.")
    add("--image-pull-policy", default=preset("IMAGE_PULL_POLICY", "IfNotPresent"), choices=_PULL_POLICIES)
    add("--image-pull-secret", action="append", help="Repeatable. [TABLEWATCHER_IMAGE_PULL_SECRETS]")
    add("--http-host", default=preset("HTTP_HOST", "0.0.0.0"), help="Address of /healthz and /metrics.")  # noqa: S104
    add("--http-port", default=preset("HTTP_PORT", "8080"), type=int, help="Port of /healthz and /metrics.")
    add("--listener-defaults", default=preset("LISTENER_DEFAULTS"), help="JSON file: resources, nodeSelector, ...")
    add("--require-secret-label", action="store_true", default=_truth(preset("REQUIRE_SECRET_LABEL")))
    add("--http-public-only", action="store_true", default=_truth(preset("HTTP_PUBLIC_ONLY")))
    add("--http-allow", action="append", help="Where HTTP sinks may be; repeatable. [TABLEWATCHER_HTTP_ALLOW]")
    add("--http-deny", action="append", help="Where HTTP sinks may not be; repeatable. [TABLEWATCHER_HTTP_DENY]")
    add("--log-level", default=preset("LOG_LEVEL", "info"), choices=_LOG_LEVELS, help="Of our own records.")
    found = parser.parse_args(arguments)
    if not found.listener_image:
        parser.error("--listener-image is needed: the image that listener Pods run, usually the operator's own")
    return Options(
        listener_image=found.listener_image,
        namespaces=tuple(sorted(set(found.namespace or _words(preset("NAMESPACES"))))),
        instance=found.instance or None,
        image_pull_policy=found.image_pull_policy,
        image_pull_secrets=tuple(found.image_pull_secret or _words(preset("IMAGE_PULL_SECRETS"))),
        http_host=found.http_host,
        http_port=found.http_port,
        listener=_defaults(parser, found.listener_defaults),
        require_secret_label=found.require_secret_label,
        http_public_only=found.http_public_only,
        http_allow=tuple(found.http_allow or _words(preset("HTTP_ALLOW"))),
        http_deny=tuple(found.http_deny or _words(preset("HTTP_DENY"))),
        log_level=found.log_level,
    )


_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_LOG_LEVELS = ("debug", "info", "warning", "error")


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _truth(text: str) -> bool:
    return text.lower() in ("1", "true", "yes")


def _defaults(parser: argparse.ArgumentParser, path: str) -> Mapping[str, Any]:
    if not path:
        return {}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(f"--listener-defaults {path} cannot be read: {error}")
    if not isinstance(found, dict):
        parser.error(f'--listener-defaults {path} must hold an object, such as {{"resources": {{}}}}')
    return found
