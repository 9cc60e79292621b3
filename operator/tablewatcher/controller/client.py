"""The API server, as plain dicts: the few calls the operator makes, each with a time limit."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from .objects import Object

FIELD_MANAGER = "tablewatcher"
TIMEOUT_SECONDS = 10.0
WATCHERS = "/apis/tablewatcher.io/v1alpha1"
SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


class ApiError(Exception):
    """The API server refused (`status`, with its `message`), or could not be asked (status 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status
        self.message = message


async def connect() -> Cluster:
    """A client that signs in as the Pod's service account, elsewhere by the kubeconfig. Raises ConfigException."""
    configuration = Configuration()
    loader: Any = config  # its functions carry no types
    if SERVICE_ACCOUNT_TOKEN.exists() and not os.environ.get("KUBECONFIG"):  # noqa: ASYNC240 - once, at the start
        loader.load_incluster_config(client_configuration=configuration)
    else:
        await loader.load_kube_config(client_configuration=configuration)
    return Cluster(ApiClient(configuration))


class Cluster:
    """One connection pool to one API server."""

    def __init__(self, api: ApiClient) -> None:
        self._api: Any = api

    async def close(self) -> None:
        """Closes the pool."""
        await self._api.close()

    async def get(self, path: str, **query: str) -> Object:
        """Any object or list. Raises ApiError."""
        return await self._call("GET", path, query=query)

    async def secret(self, namespace: str, name: str) -> Object:
        """One Secret; its values are still in base64. Raises ApiError."""
        return await self.get(f"/api/v1/namespaces/{_part(namespace)}/secrets/{_part(name)}")

    async def config_map(self, namespace: str, name: str) -> Object:
        """One ConfigMap. Raises ApiError."""
        return await self.get(f"/api/v1/namespaces/{_part(namespace)}/configmaps/{_part(name)}")

    async def watchers(self, namespace: str | None) -> list[Object]:
        """Every TableWatcher of a namespace, or of the cluster. Raises ApiError."""
        place = f"/namespaces/{_part(namespace)}" if namespace else ""
        return list((await self.get(f"{WATCHERS}{place}/tablewatchers")).get("items") or ())

    async def apply_status(self, metadata: Mapping[str, Any], status: Object) -> None:
        """Writes the status of a watcher and nothing else; refused where it is another object by now (its uid)."""
        path = f"{WATCHERS}/namespaces/{_part(metadata['namespace'])}/tablewatchers/{_part(metadata['name'])}/status"
        body = {
            "apiVersion": "tablewatcher.io/v1alpha1",
            "kind": "TableWatcher",
            "metadata": {name: metadata[name] for name in ("name", "namespace", "uid")},
            "status": status,
        }
        await self._apply(path, body)

    async def apply(self, wanted: Object) -> Object:
        """Creates or updates a ConfigMap or a Deployment, our fields only. Raises ApiError."""
        return await self._apply(_path(wanted), wanted)

    async def find(self, wanted: Object) -> Object | None:
        """The object of the same kind, namespace and name, if there is one. Raises ApiError."""
        try:
            return await self.get(_path(wanted))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def delete(self, wanted: Object) -> None:
        """Deletes that object; it may be gone already. Raises ApiError."""
        try:
            await self._call("DELETE", _path(wanted), query={"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != 404:
                raise

    async def annotate_pods(self, namespace: str, selector: str, annotation: str, value: str) -> None:
        """Sets an annotation on the running Pods of a listener. Raises ApiError."""
        path = f"/api/v1/namespaces/{_part(namespace)}/pods"
        found = await self.get(path, labelSelector=selector, fieldSelector="status.phase=Running")
        body = {"metadata": {"annotations": {annotation: value}}}
        for pod in found.get("items") or ():
            try:
                await self._call("PATCH", f"{path}/{_part(pod['metadata']['name'])}", body=body, content_type=_MERGE)
            except ApiError as error:
                if error.status != 404:  # a Pod may end in between
                    raise

    async def create_event(self, namespace: str, event: Object) -> None:
        """Posts an Event. Raises ApiError."""
        await self._call("POST", f"/apis/events.k8s.io/v1/namespaces/{_part(namespace)}/events", body=event)

    async def _apply(self, path: str, body: Object) -> Object:
        asked = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._call("PATCH", path, query=asked, body=body, content_type=_APPLY)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                serialized = await self._api.param_serialize(
                    method,
                    path,
                    query_params=list((query or {}).items()),
                    header_params=headers,
                    body=body,
                    auth_settings=["BearerToken"],
                )
                response = await self._api.call_api(*serialized, _request_timeout=TIMEOUT_SECONDS)
                text = await response.read()
        except TimeoutError:
            raise ApiError(0, "the API server does not answer") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(0, f"the API server cannot be reached ({type(error).__name__})") from None
        found = _parse(text)
        if not 200 <= response.status <= 299:
            raise ApiError(response.status, str(found.get("message") or response.reason))
        return found


def _parse(text: bytes | None) -> Object:
    try:
        found = json.loads(text or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _path(wanted: Object) -> str:
    version, metadata = wanted["apiVersion"], wanted["metadata"]
    root = f"/api/{version}" if version == "v1" else f"/apis/{version}"
    plural = f"{wanted['kind'].lower()}s"
    return f"{root}/namespaces/{_part(metadata['namespace'])}/{plural}/{_part(metadata['name'])}"


def _part(text: str) -> str:
    return quote(text, safe="")
