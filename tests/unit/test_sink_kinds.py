"""A listener loads only the client libraries of the sinks it has."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from tablewatcher.sinks.kinds import make_sink
from tablewatcher.sinks.address import AddressPolicy
from tablewatcher.spec import model

class NoSecrets:
    def read(self, name):
        raise AssertionError(name)

spec = model.WatcherSpec(
    "shop", "orders", model.Database("db"), model.Table("public", "orders"), frozenset(model.Action), {sink}
)
sink = make_sink(spec, NoSecrets(), addresses=AddressPolicy())
print(type(sink).__name__, "{other}.connector" in sys.modules or "{other}.js" in sys.modules)
"""


@pytest.mark.parametrize(
    ("sink", "name", "other"),
    [
        ('model.HttpSink("https://hooks.example.com/orders")', "HttpSink", "nats"),
        ('model.NatsSink(("nats://127.0.0.1:4222",), "shop")', "NatsSink", "aiohttp"),
    ],
)
def test_the_other_client_is_not_loaded(sink: str, name: str, other: str) -> None:
    code = CODE.format(sink=sink, other=other)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_path())
    assert done.stdout.split() == [name, "False"]


def _path() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path)}
