"""Which listener had the lease of which watcher, and whose requests came meanwhile. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# What was on its way when a lease changed hands has come by then, and so has what a listener that was frozen had begun.
_GRACE = 3.0


@dataclass(frozen=True, slots=True)
class Call:
    """A request that came to `watcher` from one of the listeners. at: when it began to come, as `time.monotonic`."""

    watcher: str
    listener: int
    at: float


@dataclass(slots=True)
class Owners:
    """Which listener had which watcher, as it was looked up again and again. Pure.

    pids: the listener of every process that was seen. awake: when each listener last went on after it was frozen.
    """

    pids: dict[int, int] = field(default_factory=dict)
    awake: dict[int, float] = field(default_factory=dict)
    # By watcher: the epoch, the process, and since when that is known.
    _known: dict[str, tuple[int, int, float]] = field(default_factory=dict)

    def looked(self, now: float, found: Mapping[str, tuple[int, int]], calls: Iterable[Call]) -> list[str]:
        """What came from others than the owner, in words.

        found: by watcher its epoch and the process that has it. calls: those between the look before and this one.
        """
        wrong = []
        for call in calls:
            known = self._known.get(call.watcher)
            if known is None or known[0] != found.get(call.watcher, (None,))[0] or known[1] not in self.pids:
                continue
            owner, late = self.pids[known[1]], call.at - known[2]
            if call.listener != owner and min(late, call.at - self.awake.get(call.listener, 0.0)) > _GRACE:
                wrong.append(
                    f"listener {call.listener} sent for {call.watcher} {late:.1f} s after listener {owner} had it"
                )
        for name, (epoch, pid) in found.items():
            if self._known.get(name, (None,))[0] != epoch:
                self._known[name] = epoch, pid, now
        return wrong

    def of(self, listener: int) -> list[str]:
        """The watchers that it has, as far as is known."""
        return [name for name, (_, pid, _) in self._known.items() if self.pids.get(pid) == listener]
