"""The README's commands, run as they are printed there."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from ..conftest import Database
from .programs import started

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"<!-- tested -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
DEMO, COMMANDS = BLOCKS
# A fresh clone installs itself before the demonstration; here the environment of the tests is that installation.
INSTALLED = f'make() {{ command make VENV={sys.prefix} -o {sys.prefix}/.installed "$@"; }}\n'


async def bash(script: str, seconds: float, **environment: str) -> tuple[int, str, str]:
    """Runs `script` in the root of the repository: exit code, standard output, standard error."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ("bash", "-euo", "pipefail", "-c", f"cd {shlex.quote(str(ROOT))}\n{script}")
    with started(*command, **({"PATH": path} | environment)) as program:
        code = await program.ended(seconds)
        return code, program.out, program.err


@pytest.mark.timeout(120)
async def test_make_demo_loses_nothing_and_ends_by_itself() -> None:
    code, out, err = await bash(INSTALLED + DEMO, 90)
    assert code == 0, out + err
    found = re.findall(r"^\s*(NATS|HTTP) +(\d+) +(\d+) +(\d+) +\d+ +([\d.]+) ms +([\d.]+) ms\s*$", out, re.MULTILINE)
    assert [sink for sink, *_ in found] == ["NATS", "HTTP"], out
    for _, committed, delivered, lost, p50, p99 in found:
        assert int(committed) == int(delivered) > 200
        assert lost == "0"
        assert 0 < float(p50) <= float(p99)
    assert '"specversion": "1.0"' in out, "one event is shown whole"
    assert "webhook-signature" in out


@pytest.mark.parametrize(
    ("given", "played"),
    [("--keep", "-f examples --keep"), ("-f own.yaml --keep", "-f own.yaml --keep"), ("--file=own", "--file=own")],
)
async def test_make_demo_hands_arguments_on(given: str, played: str) -> None:
    code, out, err = await bash(INSTALLED + f"make --no-print-directory --dry-run demo ARGS='{given}'", 30)
    assert code == 0, err
    assert out.split()[1:] == ["demo", *played.split()]


async def test_commands_without_a_cluster(database: Database) -> None:
    await database.execute((ROOT / "examples" / "orders.sql").read_text())
    code, out, err = await bash(COMMANDS, 90, TABLEWATCHER_DSN=database.dsn)
    assert code == 0, out + err
    valid, applied, again, removed = out.splitlines()
    assert valid == "shop/orders: valid"
    assert applied.startswith("shop/orders: applied, ")
    assert again == "shop/orders: in sync, nothing to do"
    assert removed.startswith("shop/orders: removed, ")
    assert await database.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'tablewatcher'") == [(0,)]


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_two_commands_come_first(command: str) -> None:
    shown = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert f"{command}\n" in shown[:2]
