"""Which publishes still wait for their PubAck. Knows nothing of NATS: numbers in, outcomes out.

A publisher opens a window for each call, sends every message with the number of its place, and waits for the
window once. Acknowledgements may come in any order, twice, or after the window was closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ..base import DELIVERED, Outcome
from .pub_ack import FOREIGN

# A number is `window << PLACE_BITS | place`: one dictionary entry for each call, not one for each message.
PLACE_BITS = 16
_PLACE_MASK = (1 << PLACE_BITS) - 1


class AckWindow:
    """The messages of one call; `outcomes[i]` stays None until message `i` is settled.

    doubt: what is to be said of those that are not settled in time, where somebody has answered who is no stream.
    """

    __slots__ = ("_done", "_missing", "base", "doubt", "outcomes")

    def __init__(self, base: int, size: int) -> None:
        if size > _PLACE_MASK:
            raise ValueError(f"a window holds at most {_PLACE_MASK} messages, not {size}")
        self.base = base
        self.outcomes: list[Outcome | None] = [None] * size
        self.doubt: Outcome | None = None
        self._missing = size
        self._done = asyncio.Event()
        if not size:
            self._done.set()

    @property
    def done(self) -> bool:
        return self._missing == 0

    def settle(self, place: int, outcome: Outcome) -> None:
        """Set the outcome of message `place`; the first one counts, of those that are JetStream's."""
        if outcome is FOREIGN:
            self.doubt = outcome
        elif self.outcomes[place] is None:
            self.outcomes[place] = outcome
            self._missing -= 1
            if not self._missing:
                self._done.set()

    def settle_rest(self, outcome: Outcome) -> None:
        """Set `outcome` for every message that has none yet."""
        self.outcomes = [outcome if known is None else known for known in self.outcomes]
        self._missing = 0
        self._done.set()

    async def wait(self) -> None:
        """Until every message is settled."""
        await self._done.wait()


class AckWindows:
    """Every open window of one connection. answers: how many answers have come since its start."""

    def __init__(self) -> None:
        self._open: dict[int, AckWindow] = {}
        self._last = 0
        self.answers = 0

    def open(self, size: int) -> AckWindow:
        """A window of `size` messages, numbered `base` to `base + size - 1`. Give it back with `close`."""
        self._last += 1
        window = AckWindow(self._last << PLACE_BITS, size)
        self._open[self._last] = window
        return window

    def close(self, window: AckWindow) -> None:
        """Forget `window`; an acknowledgement that comes later is ignored."""
        self._open.pop(window.base >> PLACE_BITS, None)

    def settle(self, number: int, outcome: Outcome) -> None:
        """The answer to message `number` has come."""
        self.answers += 1
        window = self._open.get(number >> PLACE_BITS)
        place = number & _PLACE_MASK
        if window is not None and place < len(window.outcomes):
            window.settle(place, outcome)

    def settle_delivered(self, numbers: Iterable[bytes]) -> None:
        """Good answers to messages `numbers`, in decimal digits, have come together."""
        windows = self._open
        for digits in numbers:
            number = int(digits)
            self.answers += 1
            window = windows.get(number >> PLACE_BITS)
            place = number & _PLACE_MASK
            if window is not None and place < len(window.outcomes):
                window.settle(place, DELIVERED)

    def settle_all(self, outcome: Outcome) -> None:
        """Nothing more will come for what is open now: every unsettled message gets `outcome`."""
        for window in self._open.values():
            window.settle_rest(outcome)
