"""The demonstration's count must see what it claims to see: each kind of broken promise."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from tablewatcher.cli.demo.load import Change, Ledger
from tablewatcher.cli.demo.receive import Arrivals
from tablewatcher.cli.demo.report import line, show_first, tally

PLACED, PAID = Change("7", "insert", "1"), Change("8", "update", "1")


def event(change: Change, nth: int) -> bytes:
    data = {"action": change.action, "source": {"txId": int(change.transaction)}}
    found = {"id": f"id-{nth}", "partitionkey": change.key, "sequence": f"000001-{nth:020d}", "data": data}
    return json.dumps(found).encode()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger({PLACED: 0.0, PAID: 0.0})


def arrived(*events: bytes) -> Arrivals:
    arrivals = Arrivals("HTTP")
    for each in events:
        arrivals.add("/orders", {}, each)
    return arrivals


def test_an_event_is_shown_with_what_its_bytes_have(capsys: pytest.CaptureFixture[str]) -> None:
    after = b'{"id":7,"paid":true,"note":null,"total":42.50,"tags":["a",{"b":1e3}],"none":{},"name":"ada"}'
    data = b'{"action":"insert","source":{"txId":7},"after":' + after + b"}"
    arrivals = arrived(b'{"id":"x","partitionkey":"7","sequence":"1","data":' + data + b"}")
    in_one = line("HTTP", arrivals.all[0]).plain
    shown = 'id 7, paid true, note null, total 42.50, tags ["a", {"b": 1e3}], none {}, name ada'
    assert in_one.partition("insert ")[2] == shown
    show_first(Console(width=200), [arrivals], 1)
    whole = capsys.readouterr().out.partition("as the HTTP endpoint got it:")[2]
    assert '"total": 42.50,' in whole
    assert json.loads(whole[whole.index("{") :])["data"]["after"] == json.loads(after)


def test_all_is_well(ledger: Ledger) -> None:
    found = tally(ledger, arrived(event(PLACED, 1), event(PAID, 2)))
    assert (found.committed, found.delivered, found.lost, found.repeated) == (2, 2, 0, 0)
    assert found.sound
    assert 0 < found.p50_ms <= found.p99_ms


def test_a_lost_change_is_missed(ledger: Ledger) -> None:
    found = tally(ledger, arrived(event(PLACED, 1)))
    assert (found.delivered, found.lost, found.sound) == (1, 1, False)


def test_what_was_rolled_back_must_not_arrive(ledger: Ledger) -> None:
    found = tally(ledger, arrived(event(PLACED, 1), event(PAID, 2), event(Change("9", "delete", "1"), 3)))
    assert (found.unexpected, found.sound) == (1, False)


def test_a_later_change_that_comes_first(ledger: Ledger) -> None:
    found = tally(ledger, arrived(event(PAID, 2), event(PLACED, 1)))
    assert (found.out_of_order, found.sound) == (1, False)


def test_a_repeat_is_told_and_allowed(ledger: Ledger) -> None:
    found = tally(ledger, arrived(event(PLACED, 1), event(PAID, 2), event(PLACED, 1)))
    assert (found.repeated, found.out_of_order, found.sound) == (1, 0, True)


def test_a_batch_is_so_many_events(ledger: Ledger) -> None:
    found = tally(ledger, arrived(b"[" + event(PLACED, 1) + b"," + event(PAID, 2) + b"]"))
    assert (found.delivered, found.repeated, found.sound) == (2, 0, True)


def test_attributes_may_be_headers() -> None:
    whole = json.loads(event(Change("7", "insert", "a,\u00e4"), 1))
    arrivals = Arrivals("NATS")
    arrivals.add(
        "shop.orders",
        {"CE-Id": whole["id"], "ce-partitionkey": "a,%C3%A4", "ce-sequence": whole["sequence"]},
        json.dumps(whole["data"]).encode(),
    )
    assert [arrival.event for arrival in arrivals.all] == [whole]


def test_nothing_at_all(ledger: Ledger) -> None:
    found = tally(ledger, arrived())
    assert (found.lost, found.sound, found.p50_ms) == (2, False, 0.0)
