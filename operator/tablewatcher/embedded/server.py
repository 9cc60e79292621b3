"""What our servers have in common: started on ports that stay theirs, stopped, crashed, and gone after a `with`."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar, Self

from .installation import EmbeddedUnavailable
from .process import ServerProcess

_TRIES = 5


class EmbeddedServer(ABC):
    """A server that may be started again after it was stopped or killed, on the same ports.

    name: as messages call it. stop_signal: asks it to end; immediate_signal: without what is still to do.
    stop_seconds: after those it is killed.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    immediate_signal: ClassVar[signal.Signals] = signal.SIGKILL
    stop_seconds: ClassVar[float] = 15.0

    def __init__(self) -> None:
        self._process: ServerProcess | None = None
        self._ports_proven = False
        self._choose_ports()

    @property
    def pid(self) -> int:
        """Process id of the server; EmbeddedUnavailable when it is not running."""
        if self._process is None:
            raise EmbeddedUnavailable(f"{self.name} is not running: call start() first")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> Self:
        """Start and wait until it answers, after recovery too. Idle when it runs already."""
        if self.running:
            return self
        self._prepare()
        for _ in range(_TRIES):
            try:
                self._process = self._launch()
            except EmbeddedUnavailable as error:
                # Between our look and its bind another program can take a port. Once it has been told to anybody
                # it stays.
                if self._ports_proven or "ddress already in use" not in str(error):
                    raise
                self._choose_ports()
            else:
                self._ports_proven = True
                return self
        raise EmbeddedUnavailable(f"no free port was found for {self.name}: stop some servers and try again")

    def stop(self, immediate: bool = False) -> None:
        """Shut down in order, or, `immediate`, at once."""
        if self._process is None:
            return
        self._process.signal(self.immediate_signal if immediate else self.stop_signal)
        if not self._process.wait(self.stop_seconds):
            self.kill()
        self._process = None

    def kill(self) -> None:
        """Crash: SIGKILL, nothing flushed, nobody told."""
        if self._process is None:
            return
        self._process.signal(signal.SIGKILL)
        if not self._process.wait(self.stop_seconds):
            raise EmbeddedUnavailable(f"{self.name} outlived a SIGKILL: process {self._process.pid}")
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def _choose_ports(self) -> None:
        """Ports that nothing listens on now."""

    @abstractmethod
    def _prepare(self) -> None:
        """What has to be there before the first start. Called before each."""

    @abstractmethod
    def _launch(self) -> ServerProcess:
        """The process, once it answers; EmbeddedUnavailable with the log's tail where it does not."""
