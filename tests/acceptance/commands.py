"""The command line as a person or a script meets it: manifests and Secrets as files, a process, its answer."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .programs import PROGRAM, started

SECRET = "shop-app"
# Of a test's 120: a command that waits for more than that waits for what never comes.
_COMMAND_SECONDS = 90.0
# In this process: what a warm start hides, such as a module that nobody loads, is seen by a cold one.
_HAVE_BEEN_COLD: set[tuple[str, ...]] = set()


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
    """Runs `tablewatcher ARGUMENTS` to its end. Python loads it anew for the first of each command."""
    command = tuple(map(str, arguments[:1]))
    warm = command in _HAVE_BEEN_COLD
    _HAVE_BEEN_COLD.add(command)
    began = time.monotonic()
    with started(PROGRAM, *arguments, warm=warm, **environment) as program:
        code = await program.ended(_COMMAND_SECONDS)
        return Answer(code, program.out, program.err, time.monotonic() - began)


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
        put(folder / f"{each['metadata']['name']}.yaml", json.dumps(each))
    return folder


def put(file: Path, text: str) -> None:
    """Writes a file, or over one, as editors do: whoever looks meanwhile sees nothing of it, or all."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.write_text(text)
    unfinished.replace(file)


def write_secret(folder: Path, name: str = SECRET, **keys: str) -> Path:
    """A Secret as a kubelet mounts it, below `folder`, which is returned."""
    (folder / name).mkdir(parents=True)
    for key, value in keys.items():
        (folder / name / key).write_text(value)
    return folder
