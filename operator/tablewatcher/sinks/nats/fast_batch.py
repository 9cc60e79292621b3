"""One batch of fast ingest (ADR-50 of NATS): what may be sent, and how far the stream has stored it. Pure.

The messages of a batch are numbered from 1, and the number and an operation stand in the reply subject. In gap mode
`fail` the server stores them in this order, and ends the batch rather than store one after a hole. So what is stored is
always a prefix, and everything after it can be sent again: ids that are there already are dropped one by one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..base import Outcome, Verdict
from . import pub_ack

START, APPEND, COMMIT, PING = 0, 1, 2, 4
# Messages between two acknowledgements that we ask for: the server gives no more to a lone publisher.
FLOW = 500
# Acknowledgements that may be outstanding: the server stores one stretch while the next is under way.
_STRETCHES = 2

# err_code: fast ingest not enabled on the stream, reply subject not understood, batch id not known.
_DISABLED, _NOT_UNDERSTOOD, _UNKNOWN = 10205, 10206, 10208
_TOO_MANY = 10211


def reply(inbox: str, batch: str) -> str:
    """What the reply subjects of a batch start with; the number and the operation follow."""
    return f"{inbox}{batch}.{FLOW}.fail."


def tail(operation: int) -> str:
    """What follows the number in a reply subject."""
    return f".{operation}.$FI"


class FastBatch:
    """A batch of `size` messages. `stored`: messages 1 to `stored` are in the stream.

    over: nothing more will be learnt. stopped: send no more messages. unfinished: the server must be asked (PING) how
    far it came. unusable: the stream or the server does not do fast ingest. `fault` is why it ended early: that of
    message `stored + 1` alone where it is no fault of the endpoint, else of all that are not stored. doubt: what is to
    be said where the server's answers do not come in time, and those of somebody else do.
    """

    def __init__(self, size: int, stream: str) -> None:
        self.size = size
        self.stored = 0
        self.over = self.stopped = self.unfinished = self.unusable = False
        self.fault: Outcome | None = None
        self.doubt: Outcome | None = None
        self._faulty = 0
        self._stream = stream
        self._every = 0

    @property
    def room(self) -> int:
        """The number of the last message that may be sent by now."""
        if self.stopped:
            return 0
        # Until the server has answered the first message it has not said how fast it can take more.
        return min(self.size, self.stored + self._every * _STRETCHES if self._every else 1)

    def end(self, fault: Outcome) -> None:
        """Nothing more will come, because of `fault`."""
        if not self.over:
            self.over = self.stopped = True
            if self.fault is None or self._faulty != self.stored + 1:
                self.fault, self._faulty = fault, self.stored + 1

    def answer(
        self, number: int, content: bytes, headers: Mapping[str, str] | None = None, *, asked: bool = False
    ) -> None:
        """The server's answer to message `number`; asked: to a question (PING) that bore this number."""
        if self.over:
            return
        found = _fields(content)
        kind, error = found.get("type"), found.get("error")
        if kind == "ack":
            self._every = max(1, _whole(found, "msgs"))
            self._store(_whole(found, "seq"))
        elif kind == "gap":
            self.stopped = True
        elif kind == "err":
            self._fail(_whole(found, "seq"), pub_ack.refused(error if pub_ack.is_error(error) else {}))
        elif (outcome := pub_ack.outcome(content, headers, self._stream)) is pub_ack.FOREIGN:
            self.doubt = outcome
        elif error:
            self._refuse(number, error)
            if asked:
                # A server without room turns away questions too: asking on would go in circles as fast as it answers.
                self.end(outcome)
        else:
            self._finish(found, outcome)

    def _store(self, number: int) -> None:
        self.stored = max(self.stored, min(number, self.size))

    def _fail(self, number: int, fault: Outcome) -> None:
        """Message `number` is refused: the server ends the batch before it, and says so in its own time."""
        if self.fault is None:
            self.fault, self._faulty = fault, number
        self.stopped = True

    def _refuse(self, number: int, error: Mapping[str, object]) -> None:
        """Message `number` was turned away at the door: the batch does not know of it."""
        code = error.get("err_code")
        self.unusable = code in (_DISABLED, _NOT_UNDERSTOOD, _TOO_MANY)
        if code == _UNKNOWN:
            self.end(pub_ack.unreachable("the NATS server has ended the batch: a message was lost on the way"))
            return
        self._fail(number, pub_ack.refused(error))
        if number == 1:
            self.end(pub_ack.refused(error))
        self.unfinished = True

    def _finish(self, found: Mapping[str, object], outcome: Outcome) -> None:
        """The acknowledgement of the whole batch."""
        if outcome.verdict is not Verdict.DELIVERED:
            self.stored = 0  # in a stream that is not the watcher's
            self._faulty = 0
            self.end(outcome)
            return
        # A server that knows nothing of batches has stored this one message.
        self.unusable = "batch" not in found
        self._store(_whole(found, "count"))
        self.end(pub_ack.unreachable("the NATS server ended the batch before its last message"))


def _fields(content: bytes) -> dict[str, Any]:
    """The fields of an answer; none where it is something else."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _whole(found: Mapping[str, object], name: str) -> int:
    value = found.get(name)
    return value if isinstance(value, int) else 0
