"""The pure parts of publishing to JetStream: subjects, acknowledgements, the window that waits for them."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablewatcher.errors import Reason
from tablewatcher.event import Event, attributes
from tablewatcher.naming import token
from tablewatcher.sinks.base import DELIVERED, Outcome, Verdict
from tablewatcher.sinks.binary_mode import ce_headers, header_value
from tablewatcher.sinks.nats import pub_ack
from tablewatcher.sinks.nats.ack_window import AckWindows
from tablewatcher.sinks.nats.message import MessageWriter
from tablewatcher.sinks.nats.subject import covers, subject
from tablewatcher.spec.model import Format, NatsSink, Table

RETRY = Outcome(Verdict.RETRY, Reason.SINK_UNREACHABLE, "lost", endpoint=True)


@pytest.mark.parametrize(
    ("stream", "pattern", "expected"),
    [
        ("shop.>", "shop.public.orders.insert", True),
        ("shop.>", "shop", False),
        (">", "shop.*", True),
        ("shop.*", "shop.1", True),
        ("shop.*", "shop.*", True),
        ("shop.*", "shop.1.2", False),
        ("shop.1", "shop.*", False),
        ("shop.1", "shop.1", True),
        ("shop.1.>", "shop.*.x", False),
        ("shop.*.x", "shop.*.y", False),
        ("shop.*", "shop.>", False),
        ("shop.a.b", "shop.a", False),
    ],
)
def test_a_stream_covers_a_subject(stream: str, pattern: str, expected: bool) -> None:
    assert covers(stream, pattern) is expected


def test_a_template_is_filled_with_tokens() -> None:
    made = subject("x.{schema}.{table}.{action}.{key}", Table("pub.lic", "Order s"), "insert")
    assert made.of("7") == "x.pub%2Elic.Order%20s.insert.7"
    assert made.of("") == "x.pub%2Elic.Order%20s.insert._"
    assert made.pattern == "x.pub%2Elic.Order%20s.insert.*"
    assert subject("x.row-{key}", Table("a", "b"), "insert").pattern == "x.*"


def _ack(**content: object) -> bytes:
    return json.dumps(content).encode()


def _error(code: int, err_code: int, why: str = "why") -> bytes:
    return _ack(error={"code": code, "err_code": err_code, "description": why}, stream="SHOP", seq=0)


@pytest.mark.parametrize(
    ("data", "stream", "verdict", "reason", "endpoint"),
    [
        (_ack(stream="SHOP", seq=1), "SHOP", Verdict.DELIVERED, Reason.ACKNOWLEDGED, False),
        (_ack(stream="SHOP", seq=1), None, Verdict.DELIVERED, Reason.ACKNOWLEDGED, False),
        (_ack(stream="SHOP", seq=1, duplicate=True), None, Verdict.DELIVERED, Reason.ACKNOWLEDGED, False),
        (_ack(stream="OTHER", seq=1), "SHOP", Verdict.RETRY, Reason.NO_STREAM_FOR_SUBJECT, True),
        (_ack(seq=1), None, Verdict.RETRY, Reason.SINK_UNREACHABLE, True),
        (b"+OK", None, Verdict.RETRY, Reason.SINK_UNREACHABLE, True),
        (b"", None, Verdict.RETRY, Reason.SINK_UNREACHABLE, True),
        (b"[1]", None, Verdict.RETRY, Reason.SINK_UNREACHABLE, True),
        (_ack(error="no"), None, Verdict.RETRY, Reason.SINK_UNREACHABLE, True),
        (_ack(error={"code": 400}), None, Verdict.RETRY, Reason.SINK_UNREACHABLE, True),
        (_error(400, 10060), "SHOP", Verdict.RETRY, Reason.NO_STREAM_FOR_SUBJECT, True),
        (_error(503, 10039), None, Verdict.RETRY, Reason.NO_STREAM_FOR_SUBJECT, True),
        (_error(400, 10054), None, Verdict.REJECTED, Reason.SINK_UNREACHABLE, False),
        (_error(503, 10077), None, Verdict.RETRY, Reason.SINK_UNREACHABLE, True),
        (_error(503, 10077, "messages per subject exceeded"), None, Verdict.RETRY, Reason.SINK_UNREACHABLE, False),
        (_error(409, 10158), None, Verdict.RETRY, Reason.SINK_UNREACHABLE, False),
        (_error(503, 10023), None, Verdict.RETRY, Reason.SINK_UNREACHABLE, True),
        (_error(500, 19999), None, Verdict.RETRY, Reason.SINK_UNREACHABLE, True),
        (_error(400, 19999), None, Verdict.RETRY, Reason.SINK_UNREACHABLE, False),
    ],
)
def test_what_an_answer_means(
    data: bytes, stream: str | None, verdict: Verdict, reason: Reason, endpoint: bool
) -> None:
    found = pub_ack.outcome(data, None, stream)
    assert (found.verdict, found.reason, found.endpoint) == (verdict, reason, endpoint)


def test_nobody_listening_is_no_stream() -> None:
    found = pub_ack.outcome(b"", {"Status": "503"}, None)
    assert (found.verdict, found.reason) == (Verdict.RETRY, Reason.NO_STREAM_FOR_SUBJECT)


@given(data=st.binary(max_size=60))
def test_no_answer_is_an_exception(data: bytes) -> None:
    assert pub_ack.outcome(data, None, None).verdict in Verdict


@given(value=st.text(max_size=40))
def test_a_header_value_is_one_line_of_printable_ascii(value: str) -> None:
    made = header_value(value)
    assert all(0x21 <= ord(sign) <= 0x7E for sign in made)
    assert '"' not in made


async def test_a_window_ends_when_every_message_is_settled_in_any_order() -> None:
    windows = AckWindows()
    window = windows.open(3)
    other = windows.open(1)
    for place in (2, 0, 2):
        windows.settle(window.base + place, DELIVERED)
    assert not window.done
    windows.settle(window.base + 1, RETRY)
    await window.wait()
    assert window.outcomes == [DELIVERED, RETRY, DELIVERED]
    assert other.outcomes == [None]
    assert windows.answers == 4


async def test_a_lost_connection_settles_what_is_open_and_keeps_what_was_answered() -> None:
    windows = AckWindows()
    window = windows.open(3)
    windows.settle(window.base + 1, DELIVERED)
    waiting = asyncio.ensure_future(window.wait())
    windows.settle_all(RETRY)
    await waiting
    assert window.outcomes == [RETRY, DELIVERED, RETRY]
    windows.settle(window.base, DELIVERED)
    assert window.outcomes[0] == RETRY, "an answer after the end changed an outcome"


async def test_an_answer_that_is_no_streams_leaves_the_message_unsettled() -> None:
    windows = AckWindows()
    window = windows.open(2)
    windows.settle(window.base, pub_ack.FOREIGN)
    assert (window.done, window.outcomes, window.doubt) == (False, [None, None], pub_ack.FOREIGN)
    windows.settle(window.base, DELIVERED)
    windows.settle(window.base + 1, DELIVERED)
    assert window.done
    assert window.outcomes == [DELIVERED, DELIVERED]


async def test_answers_to_nothing_are_ignored() -> None:
    windows = AckWindows()
    window = windows.open(2)
    windows.settle(window.base + 2, DELIVERED)
    windows.close(window)
    windows.settle(window.base, DELIVERED)
    assert window.outcomes == [None, None]


PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)


@given(
    op=st.sampled_from("iudtg"),
    key=st.text(max_size=20),
    traceparent=st.none() | PRINTABLE,
    replay=st.integers(0, 12),
    schema=st.text(min_size=1, max_size=8).filter(lambda text: "\0" not in text),
)
def test_the_quick_headers_are_those_of_binary_mode(
    op: str, key: str, traceparent: str | None, replay: int, schema: str
) -> None:
    table = Table(schema, "orders")
    source = "/namespaces/shop/tablewatchers/orders"
    made = Event(
        7, "0" * 31 + "7", op, token(key), None, "2026-11-23T10:00:00.123456Z", 0.0, "000001-7", traceparent, b"{}"
    )
    made.replay = replay
    writer = MessageWriter(NatsSink((), "s.{table}", "SHOP"), format=Format.BINARY, source=source, table=table)
    line, first, *headers = writer.commands([made], "").decode().split("\r\n")
    found = dict(each.split(": ", 1) for each in headers[:-3])
    wanted = ce_headers(attributes(made, source=source, table=f"{token(schema)}.orders"))
    assert found.items() >= {**wanted, "ce-datacontenttype": "application/json"}.items()
    assert {name for name in found if name.startswith("ce-")} == {*wanted, "ce-datacontenttype"}
    assert found["Nats-Msg-Id"] == made.message_id
    assert (line.split()[0], first, headers[-3:]) == ("HPUB", "NATS/1.0", ["", "{}", ""])
    size, whole = map(int, line.split()[-2:])
    assert size == len("\r\n".join([first, *headers[:-3]])) + 4 == whole - 2


@given(
    words=st.lists(st.text(max_size=500), min_size=2, max_size=2),
    key=st.text(max_size=900),
    template=st.sampled_from(["s.{key}", "s.{column:a}.{column:b}", "{key}.{column:b}.{action}.{key}"]),
)
def test_a_subject_is_one_line_short_enough_or_refused(words: list[str], key: str, template: str) -> None:
    made = Event(7, "7" * 32, "i", key, None, "", 0.0, "", None, b"{}", routing=words)
    writer = MessageWriter(
        NatsSink((), template, "SHOP"),
        format=Format.STRUCTURED,
        source="/x",
        table=Table("a", "b"),
        routing_columns=("a", "b"),
    )
    target = writer.commands([made], "inbox.").split(b"\r\n")[0].split(b" ")
    assert len(target) == 5
    assert target[1].count(b".") == template.count(".")
    assert bool(writer.refused([made], 1 << 20, None)) is (len(target[1]) > 3840)
