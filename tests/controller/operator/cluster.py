"""What the operator's tests work with: the API server as plain JSON, and a node's part played by a real listener."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from .leaks import without_api_connections

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3] / "operator")}
GROUP = "/apis/tablewatcher.io/v1alpha1"
MERGE = "application/merge-patch+json"


class Refused(Exception):
    """The API server's answer, where it is not 2xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """The API server, as cluster-admin."""

    def __init__(self, kubeconfig: Path) -> None:
        found = yaml.safe_load(kubeconfig.read_text())
        cluster = found["clusters"][0]["cluster"]
        self._url = cluster["server"]
        self._ssl = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self._headers = {"Authorization": f"Bearer {found['users'][0]['user']['token']}"}

    async def __call__(
        self, method: str, path: str, body: object = None, *, kind: str = "application/json"
    ) -> dict[str, Any]:
        headers = {**self._headers, "Content-Type": kind}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method,
                self._url + path,
                headers=headers,
                ssl=self._ssl,
                data=None if body is None else json.dumps(body),
            ) as response,
        ):
            text = await response.text()
            if response.status >= 300:
                raise Refused(response.status, text)
            found: dict[str, Any] = json.loads(text)
            return found

    async def find(self, path: str) -> dict[str, Any] | None:
        """The object at `path`, None where there is none."""
        try:
            return await self("GET", path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise


@dataclass(slots=True)
class Namespace:
    """A namespace of one test, and what the test does there."""

    api: Api
    name: str

    @property
    def watchers(self) -> str:
        return f"{GROUP}/namespaces/{self.name}/tablewatchers"

    async def secret(self, name: str, labels: dict[str, str] | None = None, **values: str) -> None:
        """Creates or replaces a Secret; `_` in a key stands for `-`."""
        path = f"/api/v1/namespaces/{self.name}/secrets"
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": labels or {}},
            "stringData": values,
        }
        if await self.api.find(f"{path}/{name}"):
            await self.api("DELETE", f"{path}/{name}")
        await self.api("POST", path, body)

    async def create(self, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
        body = {
            "apiVersion": "tablewatcher.io/v1alpha1",
            "kind": "TableWatcher",
            "metadata": {"name": name, **metadata},
            "spec": spec,
        }
        return await self.api("POST", self.watchers, body)

    async def patch(self, name: str, body: dict[str, Any]) -> None:
        await self.api("PATCH", f"{self.watchers}/{name}", body, kind=MERGE)

    async def annotate(self, name: str, **values: str) -> None:
        """Annotations of the operator's, by their names without its domain; `_` stands for `-`."""
        annotations = {f"tablewatcher.io/{key.replace('_', '-')}": text for key, text in values.items()}
        await self.patch(name, {"metadata": {"annotations": annotations}})

    async def handled(self, name: str) -> str:
        """The value of the last `reconcile-requested-at` that the operator has answered."""
        status = ((await self.watcher(name)) or {}).get("status", {})
        return str(status.get("lastHandledReconcileAt", ""))

    async def delete(self, name: str) -> None:
        await self.api("DELETE", f"{self.watchers}/{name}")

    async def watcher(self, name: str) -> dict[str, Any] | None:
        return await self.api.find(f"{self.watchers}/{name}")

    async def conditions(self, name: str) -> dict[str, tuple[str, str]]:
        """Type to (status, reason) of a watcher's conditions, of its present generation only."""
        found = await self.watcher(name)
        status = (found or {}).get("status", {})
        if found is None or status.get("observedGeneration") != found["metadata"]["generation"]:
            return {}
        return {each["type"]: (each["status"], each["reason"]) for each in status.get("conditions", ())}

    async def listing(self, path: str) -> list[dict[str, Any]]:
        """`apps/v1/deployments`, `v1/configmaps`: the listeners' objects of this namespace."""
        version, _, plural = path.rpartition("/")
        root = "/api" if version == "v1" else "/apis"
        label = "labelSelector=app.kubernetes.io/component=listener"
        return (await self.api("GET", f"{root}/{version}/namespaces/{self.name}/{plural}?{label}"))["items"]

    async def one(self, path: str) -> dict[str, Any]:
        """The only one of `listing`."""
        (found,) = await self.listing(path)
        return found


async def is_watched(namespace: Namespace, eventually: Callable[..., Awaitable[Any]]) -> None:
    """Waits until an operator watches the namespace, and goes on doing so.

    Stopped while it still asks what the API server serves, kopf ends five seconds later.
    """
    spec = {
        "database": {"secretRef": {"name": "none"}},
        "table": {"name": "orders"},
        "actions": ["insert"],
        "sink": {"nats": {"servers": ["nats://127.0.0.1:9"], "subject": "probe.{action}"}},
    }
    await namespace.create("probe", spec)
    await eventually(lambda: namespace.conditions("probe"), 30)
    await namespace.delete("probe")

    async def is_gone() -> bool:
        return await namespace.watcher("probe") is None

    await eventually(is_gone, 30)


@dataclass(slots=True)
class Operator:
    """The operator as a process; its log is kept."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    port: int
    api_port: int
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, env=self.environment, stdout=output, stderr=output
            )

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
            async with asyncio.timeout(20):
                await self.process.wait()
        return self.process.returncode or 0

    async def end(self) -> None:
        """Kills it where it still runs."""
        if self.process is not None and self.process.returncode is None:
            await self.stop(signal.SIGKILL)

    def check(self, *values: str) -> None:
        """No unexpected fault in the log, nothing of ours left open, and none of the Secrets' `values`."""
        text = self.log.read_text()
        judged = without_api_connections(text, self.api_port)
        assert "Traceback" not in judged, text
        assert "ResourceWarning" not in judged, text
        assert "unexpected fault" not in text, text
        assert not [value for value in values if value in text], "a Secret's value in the log"

    async def metrics(self) -> str:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/metrics") as response,
        ):
            return await response.text()


@dataclass(slots=True)
class _Pod:
    directory: Path
    process: asyncio.subprocess.Process
    arguments: list[str]


@dataclass(slots=True)
class Node:
    """Runs the containers of listener Deployments as processes, mounts and status included. `paused`: it does not."""

    namespace: Namespace
    directory: Path
    free_port: Any
    paused: bool = False
    pods: dict[str, _Pod] = field(default_factory=dict)
    # Of the Pods: a round that is under way would start again what is killed meanwhile.
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            for name in list(self.pods):
                await self._end(name)

    async def kill(self) -> None:
        """Every listener dies at once, and stays dead until `paused` is taken back."""
        self.paused = True
        async with self._turn:
            for pod in self.pods.values():
                pod.process.kill()
                await pod.process.wait()
            self.pods.clear()

    async def _run(self) -> None:
        while True:
            async with self._turn:
                if not self.paused:
                    await self._round()
            await asyncio.sleep(0.3)

    async def _round(self) -> None:
        deployments = {each["metadata"]["name"]: each for each in await self.namespace.listing(DEPLOYMENTS)}
        for name in set(self.pods) - set(deployments):
            await self._end(name)
        for name, deployment in deployments.items():
            await self._sync(name, deployment)

    async def _sync(self, name: str, deployment: dict[str, Any]) -> None:
        template = deployment["spec"]["template"]["spec"]
        (container,) = template["containers"]
        directory = self.directory / name
        await self._mount(directory, template, container)
        pod = self.pods.get(name)
        if pod is not None and pod.arguments != container["args"]:
            await self._end(name)
            pod = None
        if pod is None:
            self.pods[name] = await self._start(directory, container)
        if (deployment.get("status") or {}).get("availableReplicas") != 1:
            path = f"/apis/apps/v1/namespaces/{self.namespace.name}/deployments/{name}/status"
            status = {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1, "updatedReplicas": 1}
            with contextlib.suppress(Refused):
                await self.namespace.api("PATCH", path, {"status": status}, kind=MERGE)

    async def _mount(self, directory: Path, template: dict[str, Any], container: dict[str, Any]) -> None:
        paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        root = f"/api/v1/namespaces/{self.namespace.name}"
        for volume in template["volumes"]:
            target = directory / paths[volume["name"]].lstrip("/")
            if "configMap" in volume:
                found = await self.namespace.api.find(f"{root}/configmaps/{volume['configMap']['name']}")
                values = {key: text.encode() for key, text in ((found or {}).get("data") or {}).items()}
            else:
                found = await self.namespace.api.find(f"{root}/secrets/{volume['secret']['secretName']}")
                data = (found or {}).get("data") or {}
                values = {key: base64.b64decode(text) for key, text in data.items()}
            _write(target, values)

    async def _start(self, directory: Path, container: dict[str, Any]) -> _Pod:
        arguments = copy.copy(container["args"])
        for index, word in enumerate(arguments):
            if word.startswith("/etc/"):
                arguments[index] = str(directory / word.lstrip("/"))
        arguments[arguments.index("--http-host") + 1] = "127.0.0.1"
        arguments[arguments.index("--http-port") + 1] = str(self.free_port())
        code = "from tablewatcher.cli import main; main()"
        with (directory / "log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, *arguments, stdout=output, stderr=output, env=ENVIRONMENT
            )
        return _Pod(directory, process, container["args"])

    async def _end(self, name: str) -> None:
        pod = self.pods[name]
        if pod.process.returncode is None:
            pod.process.terminate()
            try:
                async with asyncio.timeout(10):
                    await pod.process.wait()
            except TimeoutError:
                pod.process.kill()
                await pod.process.wait()
        # Not before: cancelled in between, we would leave it running.
        del self.pods[name]


DEPLOYMENTS = "apps/v1/deployments"
CONFIG_MAPS = "v1/configmaps"


def _write(target: Path, values: dict[str, bytes]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.name not in values:
            path.unlink()
    for name, content in values.items():
        path = target / name
        if not path.exists() or path.read_bytes() != content:
            fresh = target / f".{name}.new"
            fresh.write_bytes(content)
            fresh.rename(path)
