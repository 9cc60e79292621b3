"""Manifests read in a process of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tablewatcher.listener import manifests
from tablewatcher.listener.load import load
from tablewatcher.listener.manifests import NotRead, read

WATCHER = """
apiVersion: tablewatcher.io/v1alpha1
kind: TableWatcher
metadata: {name: NAME, namespace: shop}
spec:
  table: {name: "a table"}
  actions: [insert, update]
  where: [{column: total, operator: GreaterThan, values: ["9.5"]}]
  sink: {nats: {servers: ["nats://127.0.0.1:4222"], subject: "shop.{table}"}}
"""


async def test_what_is_read_apart_is_what_is_read_here(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(WATCHER.replace("NAME", "orders"))
    (tmp_path / "bad.yaml").write_text(WATCHER.replace("NAME", "more").replace("[insert", "[inserted"))
    (tmp_path / "none.yaml").write_text("{")
    here = load([tmp_path], require_secret=False)
    assert (list(here.specs), len(here.faults)) == (["shop/orders"], 2), here.faults
    apart = await read([tmp_path], require_secret=False)
    assert (apart.specs, apart.origins, apart.faulty) == (here.specs, here.origins, here.faulty)
    assert [(fault.name, fault.errors, fault.message) for fault in apart.faults] == [
        (fault.name, fault.errors, fault.message) for fault in here.faults
    ]
    assert (await read([tmp_path], require_secret=True)).specs == {}


async def test_a_reader_that_dies_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for an empty directory it would stop every watcher."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(NotRead, match="exit code 1"):
        await read([tmp_path], require_secret=False)


async def test_a_file_that_does_not_answer_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "LONGEST", 0.5)
    os.mkfifo(tmp_path / "orders.yaml")
    with pytest.raises(NotRead, match="nothing after"):
        await read([tmp_path / "orders.yaml"], require_secret=False)


async def test_where_no_process_can_be_started_there_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end a listener that delivers, for a change of one manifest."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(NotRead, match="No such file"):
        await read([tmp_path], require_secret=False)


async def test_modules_of_the_directory_it_is_started_in_are_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("yaml", "json", "secrets"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(WATCHER.replace("NAME", "orders"))
    assert list((await read([tmp_path], require_secret=False)).specs) == ["shop/orders"]
