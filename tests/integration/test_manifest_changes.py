"""Which watchers a listener runs while people change its manifests, with mistakes among what they write."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tablewatcher.embedded import free_port
from tablewatcher.listener.options import Options
from tablewatcher.listener.service import Service

from ..conftest import poll


def manifest(name: str, **fields: object) -> str:
    """A watcher of a database that nobody answers for."""
    spec = {
        "table": {"name": "t"},
        "actions": ["insert"],
        "sink": {"http": {"url": "http://127.0.0.1:9/"}},
    } | fields
    kind = {"apiVersion": "tablewatcher.io/v1alpha1", "kind": "TableWatcher"}
    return json.dumps({**kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec})


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """Runs `shop/a` and `shop/b` of one file, and `shop/c` of another in the same directory."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "both.yaml").write_text(f"{manifest('a')}\n---\n{manifest('b')}\n")
    (folder / "c.yaml").write_text(manifest("c"))
    service = Service(Options(files=(folder,), dsn=f"postgresql://u:p@127.0.0.1:{free_port()}/d"))
    await service._reload()
    assert set(service._watches) == {"shop/a", "shop/b", "shop/c"}
    yield service
    await service.close()


ALL = {"shop/a", "shop/b", "shop/c"}

Change = Callable[[Path], object]
# What is written, and which watchers go on as they were.
MISTAKES: dict[str, tuple[Change, set[str]]] = {
    "one of two": (lambda at: (at / "both.yaml").write_text(f"{manifest('a', columns=1)}\n---\n{manifest('b')}"), ALL),
    "no YAML": (lambda at: (at / "both.yaml").write_text("a: [1,\n"), ALL),
    "half written": (lambda at: (at / "c.yaml").write_text(manifest("c")[:50]), ALL),
    "no text": (lambda at: (at / "c.yaml").write_bytes(b"\xff\xfe"), ALL),
    "nameless": (lambda at: (at / "c.yaml").write_text(manifest("c").replace('"name": "c", ', "")), ALL),
    "there twice": (lambda at: (at / "d.yaml").write_text(manifest("c", columns=["x"])), ALL),
    "the folder": (lambda at: at.rename(at.with_name("elsewhere")), ALL),
    "removed": (lambda at: (at / "c.yaml").unlink(), {"shop/a", "shop/b"}),
    "removed beside a mistake": (
        lambda at: ((at / "c.yaml").unlink(), (at / "both.yaml").write_text("a: [1,\n")),
        {"shop/a", "shop/b"},
    ),
    "emptied": (lambda at: (at / "both.yaml").write_text(""), {"shop/c"}),
    "nested in itself": (lambda at: (at / "c.yaml").write_text("&a {kind: List, items: [*a]}"), ALL),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_stops_no_watcher(service: Service, tmp_path: Path, mistake: str) -> None:
    change, expected = MISTAKES[mistake]
    before = dict(service._watches)
    change(tmp_path / "manifests")
    await service._reload()
    assert service._watches == {name: before[name] for name in expected}


async def test_a_good_change_beside_a_mistake_is_taken(service: Service, tmp_path: Path) -> None:
    before = dict(service._watches)
    both = tmp_path / "manifests" / "both.yaml"
    both.write_text(f"{manifest('a', columns=1)}\n---\n{manifest('b', columns=['x'])}")
    await service._reload()
    assert service._watches["shop/a"] is before["shop/a"]
    await until(lambda: sent(service).get("shop/b") == ["x"])
    both.write_text(f"{manifest('a', columns=['y'])}\n---\n{manifest('b', columns=['x'])}")
    await service._reload()
    await until(lambda: sent(service).get("shop/a") == ["y"])


async def test_a_watcher_that_takes_long_to_stop_delays_no_other(tmp_path: Path) -> None:
    """Its database does not answer, or its endpoint has a request in hand; then it begins with what is newest."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for key, value in {"host": "127.0.0.1", "port": str(free_port()), "username": "u"}.items():
            (tmp_path / name / key).write_text(value)

    def write(**fields: object) -> None:
        texts = [manifest(name, database={"secretRef": {"name": name}}, **fields) for name in ("a", "b")]
        (tmp_path / "both.yaml").write_text("\n---\n".join(texts))

    write()
    service = Service(Options(files=(tmp_path / "both.yaml",), secrets_dir=tmp_path))
    await service._reload()
    try:
        async with service._targets[service._target_key(service._watches["shop/a"].spec)]._lock:
            for columns in (["x"], ["y"], ["z", "z2"]):
                write(columns=columns)
                await service._reload()
                await until(lambda: sent(service).get("shop/b") == columns)  # noqa: B023
                assert "shop/a" not in service._watches
        await until(lambda: sent(service) == {"shop/a": ["z", "z2"], "shop/b": ["z", "z2"]})
    finally:
        await service.close()


def sent(service: Service) -> dict[str, list[str]]:
    return {name: list(watch.spec.columns) for name, watch in service._watches.items()}


async def until(holds: Callable[[], bool]) -> None:
    async def seen() -> bool:
        return holds()

    await poll(seen, 30)
