"""What holds a value from a Secret never shows it where it is printed itself, as in a traceback or a log."""

from __future__ import annotations

from yarl import URL

from tablewatcher.cli.watchers import Scope
from tablewatcher.controller.secret import _Fetched
from tablewatcher.listener.options import Options
from tablewatcher.postgres.connection.conninfo import Access
from tablewatcher.sinks.http.endpoint import Endpoint

SECRET = "s3cr3t"


def test_no_value_is_in_a_repr() -> None:
    dsn = f"postgresql://u:{SECRET}@h/d"
    endpoint = Endpoint(URL(f"http://h/{SECRET}"), "h", 80, (("Authorization", SECRET),), (SECRET.encode(),), None)
    holders = [Access(dsn), Scope((), dsn, None, "i"), Options((), dsn), _Fetched({"a": {"b": SECRET}}, {}), endpoint]
    shown = repr(holders)
    assert SECRET not in shown
    assert "Endpoint" in shown
