"""What is granted, taken away, raised or lowered at a NATS server while a sink is open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import DiscardPolicy

from tablewatcher.errors import Reason, SinkError
from tablewatcher.sinks.base import Outcome, Verdict
from tablewatcher.sinks.nats import NatsSink
from tablewatcher.spec.model import CreateStream, NatsAuth, SecretKey

from ..running import running_time
from .accounts import Operator
from .conftest import add_stream, nats_sink
from .events import MemorySecrets, event, events
from .servers import NatsServer

SECONDS = 30
Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    made = NatsServer(tmp_path)
    yield made
    made.kill()


def _rights(publish: str, subscribe: str = '"_INBOX.>"') -> str:
    return f"""accounts {{ SHOP: {{
      jetstream: enabled
      users: [
        {{user: all, password: p}}
        {{user: watcher, password: p, permissions: {{publish: [{publish}], subscribe: [{subscribe}]}}}}
      ]
    }} }}"""


async def _opened(server: NatsServer, **stream: object) -> NatsSink:
    await add_stream(server, "all:p@", **stream)
    sink = nats_sink(server.url.replace("//", "//watcher:p@"))
    await sink.open()
    return sink


async def _delivered(sink: NatsSink, first: int = 1) -> bool:
    return {each.verdict for each in await sink.deliver(events(300, first=first))} == {Verdict.DELIVERED}


async def _checks(sink: NatsSink) -> Reason:
    try:
        await sink.check()
    except SinkError as error:
        return error.reason
    return Reason.ACKNOWLEDGED


class _OddSecrets(MemorySecrets):
    """odd: reading fails as nobody has foreseen. tried: how often it was."""

    odd, tried = False, 0

    def read(self, name: str) -> dict[str, str]:
        if self.odd:
            self.tried += 1
            raise RuntimeError("a loop of links")
        return super().read(name)


async def test_an_unforeseen_fault_is_no_end_of_connecting(server: NatsServer, eventually: Eventually) -> None:
    """Also where there is nothing to send, and looks alone tell that it is away."""
    server.start()
    await add_stream(server)
    secrets = _OddSecrets({"nats": {"token": "t"}})
    sink = nats_sink(server.url, secrets=secrets, auth=NatsAuth(token=SecretKey("nats", "token")))
    await sink.open()
    secrets.odd = True
    server.kill()
    await eventually(lambda: secrets.tried, SECONDS)
    assert await _checks(sink) is Reason.SINK_UNREACHABLE
    secrets.odd = False
    server.start()
    await eventually(lambda: _is_well(sink), SECONDS)
    await sink.close()


async def _is_well(sink: NatsSink) -> bool:
    return await _checks(sink) is Reason.ACKNOWLEDGED


@pytest.mark.parametrize("fast", [False, True])
async def test_a_right_that_is_granted_is_used_at_once(server: NatsServer, eventually: Eventually, fast: bool) -> None:
    server.configure(_rights('"$JS.API.>"'))
    server.start()
    sink = await _opened(server, allow_batched=fast)
    outcomes = await sink.deliver(events(300))
    assert {each.reason for each in outcomes} == {Reason.SINK_AUTH_FAILED}
    server.reload(_rights('"$JS.API.>", "shop.>"'))
    await eventually(lambda: _delivered(sink), SECONDS)
    assert await _checks(sink) is Reason.ACKNOWLEDGED
    await sink.close()


async def test_a_right_to_read_answers_may_go_and_come_back(server: NatsServer, eventually: Eventually) -> None:
    server.configure(_rights('">"'))
    server.start()
    sink = await _opened(server)
    assert await _delivered(sink)

    async def refused() -> bool:
        async with running_time() as took:
            (outcome,) = await sink.deliver(events(1, first=301))
        assert took.seconds < sink.timeout, "the answer that cannot come was waited for"
        return (outcome.reason, outcome.endpoint) == (Reason.SINK_AUTH_FAILED, True)

    server.reload(_rights('">"', '"other.>"'))
    await eventually(refused, SECONDS)

    async def said() -> bool:
        return await _checks(sink) is Reason.SINK_AUTH_FAILED

    await eventually(said, SECONDS)
    server.reload(_rights('">"'))
    await eventually(lambda: _delivered(sink, 301), SECONDS)
    assert await _checks(sink) is Reason.ACKNOWLEDGED
    await sink.close()


def _verdicts(outcomes: list[Outcome]) -> list[Verdict]:
    return [outcome.verdict for outcome in outcomes]


async def test_another_max_payload_is_noticed(server: NatsServer, eventually: Eventually) -> None:
    server.configure("max_payload: 100000")
    server.start()
    await add_stream(server)
    sink = nats_sink(server.url)
    await sink.open()

    async def large() -> list[Verdict]:
        """Also looks, as the listener does every now and then."""
        found = _verdicts(await sink.deliver([event(1), event(2, note="x" * 150_000), event(3)]))
        with suppress(SinkError):
            await sink.check()
        return found

    only_small = [Verdict.DELIVERED, Verdict.REJECTED, Verdict.DELIVERED]
    assert await large() == only_small
    server.reload("max_payload: 300000")

    async def passes() -> bool:
        return await large() == [Verdict.DELIVERED] * 3

    await eventually(passes, SECONDS)
    server.reload("max_payload: 100000")

    async def refused() -> bool:
        return await large() == only_small

    await eventually(refused, SECONDS)
    await sink.close()


async def test_a_users_own_bound_does_not_cost_the_connection(tmp_path: Path) -> None:
    operator = Operator()
    server = NatsServer(tmp_path, operator.config)
    server.start()
    secrets = MemorySecrets({"login": {"user.creds": operator.creds(payload=2000)}})
    auth = NatsAuth(creds=SecretKey("login", "user.creds"))
    sink = nats_sink(server.url, auth=auth, secrets=secrets, stream="SHOP", create=CreateStream())
    await sink.open()
    outcomes = await sink.deliver([event(1), event(2, note="x" * 2000), event(3)])
    assert _verdicts(outcomes) == [Verdict.DELIVERED, Verdict.REJECTED, Verdict.DELIVERED]
    assert "user's limit" in outcomes[1].message
    await sink.close()
    server.kill()


@pytest.mark.parametrize("fast", [False, True])
async def test_a_subject_that_is_full_holds_no_other(nats_server: NatsServer, fast: bool) -> None:
    bounds = {"max_msgs_per_subject": 1, "discard": DiscardPolicy.NEW, "discard_new_per_subject": True}
    await add_stream(nats_server, allow_batched=fast, **bounds)
    sink = nats_sink(nats_server.url, subject="shop.{key}")
    await sink.open()
    assert set(_verdicts(await sink.deliver([event(n, key=f"k{n}") for n in range(10)]))) == {Verdict.DELIVERED}
    outcomes = await sink.deliver([event(1000 + n, key=f"k{n + 7}") for n in range(200)])
    assert _verdicts(outcomes) == [Verdict.RETRY] * 3 + [Verdict.DELIVERED] * 197
    assert not any(each.endpoint for each in outcomes)
    await sink.close()


async def test_events_that_would_be_too_large_for_the_server_are_told_before(server: NatsServer) -> None:
    server.configure("max_payload: 100000")
    server.start()

    async def told(max_event_bytes: int, **fields: object) -> list[str]:
        sink = nats_sink(server.url, max_event_bytes=max_event_bytes, **fields)
        await sink.look()
        return [note for note in sink.notes if "spec.capture.maxEventBytes" in note]

    made = {"stream": "SHOP", "create": CreateStream()}
    for fields in ({"jet_stream": False}, made):
        (note,) = await told(100_000, **fields)
        assert "takes messages of 100000 bytes" in note
        assert "max_payload" in note
        assert await told(90_000, **fields) == []
    await add_stream(server, max_msg_size=50_000)
    (note,) = await told(90_000)
    assert "the stream takes messages of 50000 bytes" in note
    assert await told(40_000) == []
