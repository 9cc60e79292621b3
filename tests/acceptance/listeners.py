"""`tablewatcher` as a program: manifests, `apply`, and listeners that a test may kill."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import aiohttp

from tablewatcher.embedded import free_port

from .commands import tablewatcher
from .programs import PROGRAM, Program


def nats_sink(url: str, prefix: str) -> dict[str, Any]:
    """The sink of a manifest: JetStream, subjects below `prefix`."""
    return {"nats": {"servers": [url], "subject": f"{prefix}.{{table}}.{{action}}"}}


def http_sink(url: str, timeout: int = 30, max_events: int = 1) -> dict[str, Any]:
    """The sink of a manifest: HTTP, `max_events` events a request.

    timeout: seconds. Long, for the endpoint stands still with its test: what it answers late would be sent again.
    """
    batch = {"maxEvents": max_events, "lingerMilliseconds": 5 if max_events > 1 else 0}
    return {"http": {"url": url, "timeoutSeconds": timeout, "batch": batch}}


def write_manifest(path: Path, sink: dict[str, Any], **delivery: Any) -> Path:
    """A watcher of table `account` in the file `path`; `delivery` adds to that part of its spec."""
    spec = {
        "database": {"secretRef": {"name": "unused"}},
        "table": {"name": "account"},
        "actions": ["insert", "update", "delete"],
        "columns": ["version"],
        "sink": sink,
        # Short, so that a test sees many attempts and heals soon.
        "delivery": {"backoff": {"initialMilliseconds": 50, "maxSeconds": 1}} | delivery,
    }
    manifest = {
        "apiVersion": "tablewatcher.io/v1alpha1",
        "kind": "TableWatcher",
        "metadata": {"name": path.stem, "namespace": "faults"},
        "spec": spec,
    }
    path.write_text(json.dumps(manifest))
    return path


def with_every_option(manifest: Path, *, binary: bool) -> Path:
    """The same watcher with everything on that capture can do. Its condition holds for every row of the writers."""
    found = json.loads(manifest.read_text())
    found["spec"] |= {
        "actions": ["insert", "update", "delete", "truncate"],
        "columns": ["*"],
        "triggerColumns": ["version"],
        "where": [{"column": "version", "operator": "GreaterThan", "values": ["0"]}],
        "includeBefore": True,
        "capture": {"allowSkip": True},
        "format": "Binary" if binary else "Structured",
    }
    if nats := found["spec"]["sink"].get("nats"):
        nats["subject"] += ".{key}.{column:version}"
    manifest.write_text(json.dumps(found))
    return manifest


async def apply(manifest: Path, dsn: str, *options: object) -> None:
    """Runs `tablewatcher apply`; it must succeed."""
    answer = await tablewatcher("apply", "-f", manifest, "--dsn", dsn, *options)
    assert answer.code == 0, answer.out + answer.err


@dataclass(slots=True, eq=False)
class Listener:
    """`tablewatcher listen`, one process at a time; its output is appended to `log`. options: more of the command."""

    manifest: Path
    dsn: str
    log: Path
    options: tuple[object, ...] = ()
    port: int = field(default_factory=free_port)
    _program: Program | None = None
    _output: IO[bytes] | None = None

    def start(self) -> None:
        """Starts the process; does not wait until it is ready."""
        assert self._program is None
        self._output = self.log.open("a+b")
        options = ("-f", self.manifest, "--dsn", self.dsn, "--http-port", self.port, *self.options)
        # What reads the options makes way for a Python that begins anew, whatever the former had loaded.
        files = {"stdout": self._output, "stderr": self._output}
        self._program = Program(PROGRAM, "listen", *options, **files, tethered=True, warm=True)

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self._program is not None
        self._program.send(number)

    @property
    def pid(self) -> int | None:
        """Of the process; None where none runs."""
        return None if self._program is None else self._program.pid

    async def kill(self) -> None:
        """kill -9, and waits until it is gone."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> int:
        """SIGTERM; its exit code."""
        return await self._end(signal.SIGTERM)

    async def close(self) -> None:
        """Gone, whatever it was doing."""
        if self._program is not None:
            await self.kill()

    async def state(self) -> tuple[bool, str, str]:
        """Ready, and the watcher's reason and message, as `/readyz` tells them; not ready where nobody answers."""
        found = (await self._watchers() or {}).get(f"faults/{self.manifest.stem}")
        if found is None:
            return False, "", ""
        return bool(found["ready"]), str(found["reason"]), str(found["message"])

    async def is_ready(self) -> bool:
        """Whether every watcher is, and there is one."""
        watchers = await self._watchers()
        return bool(watchers) and all(each["ready"] for each in watchers.values())

    async def serves_nothing(self) -> bool:
        """Whether it says that no watcher runs."""
        return await self._watchers() == {}

    async def delivered(self) -> float:
        """Events it has delivered since it started, as `/metrics` tells."""
        return await self.metric("events_delivered_total")

    async def metric(self, name: str, label: str = "") -> float:
        """The sum of a metric over its labels. label: of those alone that carry it, as `name="value"`."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
            session.get(f"http://127.0.0.1:{self.port}/metrics") as answer,
        ):
            lines = (await answer.text()).splitlines()
        return sum(
            float(line.split()[-1]) for line in lines if line.startswith(f"tablewatcher_{name}{{") and label in line
        )

    async def forwards(self) -> bool:
        """Whether it has the lease and the sink."""
        ready, reason, _ = await self.state()
        return ready and reason == "Forwarding"

    async def stands_by(self) -> bool:
        """Whether another one has the lease."""
        return "standing by" in (await self.state())[2]

    async def _watchers(self) -> dict[str, dict[str, Any]] | None:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
                session.get(f"http://127.0.0.1:{self.port}/readyz") as answer,
            ):
                return dict((await answer.json())["watchers"])
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def _end(self, number: signal.Signals) -> int:
        program, self._program = self._program, None
        assert program is not None
        try:
            return await program.end(number)
        finally:
            program.close()
            assert self._output is not None
            self._output.close()
