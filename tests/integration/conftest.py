"""What every test of this tier begins with."""

from __future__ import annotations

import pytest

from tablewatcher.postgres.install import apply


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An `apply` that stands still for two seconds is cut off, so that it holds no writer: here the machine may."""
    monkeypatch.setattr(apply, "_FROZEN_MS", 60_000)
