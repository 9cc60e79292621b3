"""What a running listener makes of manifests that are deleted, renamed, replaced, or swapped by a kubelet's links."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tablewatcher.embedded import free_port
from tablewatcher.listener import service as services
from tablewatcher.listener.files import signature
from tablewatcher.listener.options import Options
from tablewatcher.listener.service import Service

from ..conftest import poll

Runs = dict[str, list[str]]
# Seconds between two looks.
LOOK = 0.1


def manifest(name: str, *columns: str) -> str:
    """A watcher of a database that nobody answers for."""
    spec = {
        "table": {"name": "t"},
        "actions": ["insert"],
        "columns": list(columns),
        "sink": {"http": {"url": "http://127.0.0.1:9/"}},
    }
    kind = {"apiVersion": "tablewatcher.io/v1alpha1", "kind": "TableWatcher"}
    return json.dumps({**kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec})


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[Path], Service]]:
    """`start(path)`: a listener with `-f path`, which looks ten times a second."""
    monkeypatch.setattr(services, "RELOAD_SECONDS", LOOK)
    running: list[asyncio.Task[None]] = []

    def begin(path: Path) -> Service:
        options = Options(files=(path,), dsn=f"postgresql://u:p@127.0.0.1:{free_port()}/d", http_port=free_port())
        service = Service(options)
        running.append(asyncio.create_task(service.run()))
        return service

    yield begin
    for task in running:
        assert not task.done(), "whatever becomes of its files, it goes on"
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def becomes(service: Service, wanted: Runs) -> None:
    """Until the listener has read what is there now and runs these watchers, and for a look more."""

    def runs() -> Runs:
        return {name: list(watch.spec.columns) for name, watch in service._watches.items()}

    await has_read(service)
    await poll(lambda: runs() == wanted, 20)
    await asyncio.sleep(1.5 * LOOK)
    assert runs() == wanted


async def has_read(service: Service) -> None:
    await poll(lambda: service._signature == signature(service._options.files), 20)


def move_into_place(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)


A, AX = {"shop/a": []}, {"shop/a": ["x"]}
NONE: Runs = {}
# What is done to the file `-f` names, and what runs then.
FILE: dict[str, tuple[Callable[[Path], object], Runs]] = {
    "deleted": (Path.unlink, NONE),
    "renamed": (lambda path: path.rename(path.with_name("b.yaml")), NONE),
    "emptied": (lambda path: path.write_text(""), NONE),
    "half written": (lambda path: path.write_text(manifest("a", "x")[:80]), A),
    "replaced": (lambda path: move_into_place(path, manifest("a", "x")), AX),
    "replaced by another watcher": (lambda path: move_into_place(path, manifest("b")), {"shop/b": []}),
    "made a directory": (lambda path: (path.unlink(), path.mkdir()), NONE),
    "made a link in a circle": (lambda path: (path.unlink(), path.symlink_to(path)), A),
    "made a link that leads nowhere": (lambda path: (path.unlink(), path.symlink_to("gone")), NONE),
    "with its directory": (lambda path: path.parent.rename(path.parent.with_name("elsewhere")), A),
}
# The same for a file in a directory that `-f` names.
ENTRY = FILE | {
    "renamed": (lambda path: path.rename(path.with_name("b.yaml")), A),
    "renamed to no manifest": (lambda path: path.rename(path.with_name("a.yaml.bak")), NONE),
}


@pytest.mark.parametrize("change", FILE)
async def test_a_file(start: Callable[[Path], Service], tmp_path: Path, change: str) -> None:
    path = tmp_path / "manifests" / "a.yaml"
    path.parent.mkdir()
    path.write_text(manifest("a"))
    service = start(path)
    await becomes(service, A)
    act, wanted = FILE[change]
    act(path)
    await becomes(service, wanted)


@pytest.mark.parametrize("change", ENTRY)
async def test_a_file_of_a_directory(start: Callable[[Path], Service], tmp_path: Path, change: str) -> None:
    path = tmp_path / "manifests" / "a.yaml"
    path.parent.mkdir()
    path.write_text(manifest("a"))
    service = start(path.parent)
    await becomes(service, A)
    act, wanted = ENTRY[change]
    act(path)
    await becomes(service, wanted)


async def test_what_is_gone_may_come_back(start: Callable[[Path], Service], tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(manifest("a"))
    service = start(path)
    await becomes(service, A)
    path.unlink()
    await becomes(service, NONE)
    path.write_text("a: [1,")  # as at the beginning of a listener, where it would end it
    await becomes(service, NONE)
    path.write_text(manifest("a", "x"))
    await becomes(service, AX)


@pytest.mark.parametrize("whole", [True, False], ids=["directory", "file"])
async def test_a_config_map(start: Callable[[Path], Service], tmp_path: Path, *, whole: bool) -> None:
    """Its volume is a directory of links through `..data`, which a kubelet exchanges with one rename."""
    volume = tmp_path / "volume"
    volume.mkdir()

    def mount(number: int, **files: str) -> None:
        """As kubelet's atomic writer does."""
        (volume / f"..{number}").mkdir()
        for name, text in files.items():
            (volume / f"..{number}" / f"{name}.yaml").write_text(text)
        (volume / "..data_tmp").symlink_to(f"..{number}")
        (volume / "..data_tmp").replace(volume / "..data")
        for name in files:
            if not (volume / f"{name}.yaml").is_symlink():
                (volume / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")
        for link in volume.glob("*.yaml"):
            if link.stem not in files:
                link.unlink()

    mount(1, a=manifest("a"))
    service = start(volume if whole else volume / "a.yaml")
    await becomes(service, A)
    mount(2, a=manifest("a", "x"))
    await becomes(service, AX)
    mount(3, a="a: [1,")
    await becomes(service, AX)
    mount(4, b=manifest("b"))
    await becomes(service, {"shop/b": []} if whole else NONE)


async def test_a_file_that_is_away_for_a_moment_stops_nothing(start: Callable[[Path], Service], tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(manifest("a"))
    service = start(path)
    await becomes(service, A)
    watch = service._watches["shop/a"]
    for _ in range(6):
        path.unlink()
        await asyncio.sleep(LOOK / 2)
        path.write_text("")
        path.write_text(manifest("a"))
        await has_read(service)
    assert service._watches["shop/a"] is watch
