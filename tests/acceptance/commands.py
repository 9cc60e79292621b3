"""The command line as a person or a script meets it: manifests and Secrets as files, a process, its answer."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("tablewatcher")
SECRET = "shop-app"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said: `code`, `out` and `err`, and how many seconds it took."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def watchers(self) -> dict[str, dict[str, Any]]:
        """The watchers of `--output json`, by name."""
        return {each["watcher"]: each for each in json.loads(self.out)}


async def tablewatcher(*arguments: object, **environment: str) -> Answer:
    """Runs `tablewatcher ARGUMENTS` to its end."""
    began = time.monotonic()
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("TABLEWATCHER_")}
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *map(str, arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=inherited | environment,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Answer(process.returncode, out.decode(), err.decode(), time.monotonic() - began)


def manifest(name: str = "orders", **changes: Any) -> dict[str, Any]:
    """A sound watcher of public.orders; `changes` replace fields of its spec, None removes one."""
    spec: dict[str, Any] = {
        "database": {"secretRef": {"name": SECRET}},
        "table": {"schema": "public", "name": "orders"},
        "actions": ["insert", "update", "delete"],
        "columns": ["status"],
        "sink": {"nats": {"servers": ["nats://127.0.0.1:4222"], "subject": "shop.{table}.{action}"}},
    }
    spec = {field: value for field, value in (spec | changes).items() if value is not None}
    return {
        "apiVersion": "tablewatcher.io/v1alpha1",
        "kind": "TableWatcher",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    }


def write(folder: Path, *manifests: dict[str, Any]) -> Path:
    """Each manifest in a file of its own below `folder`, which is returned."""
    folder.mkdir(exist_ok=True)
    for each in manifests:
        # JSON is YAML.
        (folder / f"{each['metadata']['name']}.yaml").write_text(json.dumps(each))
    return folder


def write_secret(folder: Path, name: str = SECRET, **keys: str) -> Path:
    """A Secret as a kubelet mounts it, below `folder`, which is returned."""
    (folder / name).mkdir(parents=True)
    for key, value in keys.items():
        (folder / name / key).write_text(value)
    return folder
