"""Which event may be tried out of its turn, to judge what holds all others up: a walk over what comes behind. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ...event import Event
from .backlog import BARRIERS, Backlog
from .blame import Blame


class Walk:
    """Over what nobody has looked at yet and what is not read yet, in order, from the first of it.

    suspects: passed, for they have failed by themselves as often as they may. barred: a barrier has been passed or
    reached: what is found goes only in one go behind all suspects. is_over: nothing further on may go. spare: a suspect
    that may be tried once more by itself.

    tried: what was tried before it was read, by ring id, and when it may be again. may_judge: whether all that waits is
    suspect too, and that many more may be tried in one go.
    """

    def __init__(
        self,
        backlog: Backlog,
        blame: Blame,
        tried: Mapping[int, tuple[Event, float]],
        may_judge: Callable[[int], bool],
    ) -> None:
        self._ordered = backlog.ordered
        self._owners = backlog.lanes.owners
        self._blame = blame
        self._tried = tried
        self._may_judge = may_judge
        self.suspects: list[Event] = []
        self.barred = backlog.barrier is not None
        self.is_over = False
        self.spare: Event | None = None
        # Keys of all that was passed, and of those the ones that were not free.
        self._passed: set[str] = set()
        self._held: set[str] = set()
        self._only_suspects = True
        self._accepted = blame.accepted

    def find(self, events: Iterable[Event], now: float) -> Event | None:
        """The first of `events`, which come after all that was passed, that may be tried. Goes on behind it."""
        is_sure = False
        for each in events:
            event, due = self._tried.get(each.ring_id, (each, now))
            if self._ordered and event.op in BARRIERS:
                self.barred = True
            if not self._is_free(event):
                continue
            is_suspect = self._blame.is_suspect(event)
            # It is asked once for many suspects, and for what is found: all that waits is looked at for it.
            if self.barred and not (is_sure and is_suspect):
                is_sure = self._may_go_on()
                self.is_over = not is_sure
                if self.is_over:
                    return None
            if is_suspect:
                self.suspects.append(event)
                if self.spare is None and due <= now and not self.barred:
                    self.spare = event
                continue
            # It may be accepted yet: no barrier goes before it.
            self._only_suspects = False
            if due <= now or self.barred:
                return event
        return None

    def last(self) -> Event | None:
        """Where nothing more comes: the last of the suspects, which may be accepted by now, if a barrier was passed."""
        if self.barred and not self.is_over and self.suspects and self._may_go_on():
            return self.suspects.pop()
        return None

    def _is_free(self, event: Event) -> bool:
        """Whether an event waits for nobody. What is passed holds up later events of its keys, whatever becomes of it.

        A key that was not free then may be now, and its later events must not go before the one that was passed.
        """
        keys = event.lane_keys
        held = [key for key in keys if key in self._owners]
        is_free = not held and self._passed.isdisjoint(keys)
        self._held.update(held)
        self._passed.update(keys)
        return is_free

    def _may_go_on(self) -> bool:
        """Whether all before would be put aside if what is found is accepted: the suspects, and what follows these.

        A walk may take many looks, and what was so at the first of them need not be now.
        """
        if not self._only_suspects or self._accepted != self._blame.accepted:
            return False
        is_held = self._held <= self._owners.keys()
        are_free = all(key not in self._owners for event in self.suspects for key in event.lane_keys)
        return is_held and are_free and self._may_judge(len(self.suspects))
