"""What a command costs is its start, mostly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "nats.yaml"
COUNTED = """
import atexit, gc, sys

collected = []
gc.callbacks.append(lambda phase, _: collected.append(phase))
atexit.register(lambda: print(collected.count("stop"), file=sys.stderr))
from tablewatcher.cli import main
main()
"""


def test_a_command_looks_for_no_garbage_while_it_loads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, "validate", "-f", EXAMPLE],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # Python itself does so now and then before we are asked.
    assert int(done.stderr) < 20, "it was 130"
