"""Everything at once: writers of every kind, watchers with every option, and faults of all kinds in any order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .trial.run import run

# Another course of events, or a longer one, as in `TABLEWATCHER_TRIAL=7 TABLEWATCHER_TRIAL_SECONDS=300 pytest ...`.
SEED = os.environ.get("TABLEWATCHER_TRIAL", "1")
SECONDS = float(os.environ.get("TABLEWATCHER_TRIAL_SECONDS", "15"))
PATIENCE = 120.0


# nats-py leaves the connection open of a server that is frozen while it is greeted.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(3 * (SECONDS + PATIENCE))
async def test_all_arrives_in_order_whatever_happens_at_once(server_directory: Path) -> None:
    found = await run(server_directory, SEED, SECONDS, patience=PATIENCE)
    assert not found, (server_directory / "log").read_text()
