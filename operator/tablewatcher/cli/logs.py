"""Logs: one JSON object a line, or coloured lines where a person watches."""

from __future__ import annotations

import logging
import sys

import structlog

from .plain import plain


def configure_logs() -> None:
    """To standard error; libraries' own records from warning level up."""
    renderers: list[structlog.typing.Processor] = [structlog.processors.JSONRenderer()]
    if sys.stderr.isatty():
        renderers = [_plain, structlog.dev.ConsoleRenderer()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    # It warns whenever a TLS connection ends.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    # nats-py logs every failed attempt to reconnect; the sink says the same once, with a reason.
    logging.getLogger("nats").setLevel(logging.CRITICAL)


def _plain(_logger: object, _method: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {name: plain(value) if isinstance(value, str) else value for name, value in record.items()}
