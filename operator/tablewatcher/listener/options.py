"""What a listener is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..naming import LOCAL_INSTANCE
from ..sinks.address import AddressPolicy


@dataclass(frozen=True, slots=True)
class Options:
    """As the command line has them. `dsn` wins over the database's Secrets that the manifests name."""

    files: tuple[Path, ...]
    dsn: str | None = field(default=None, repr=False)
    secrets_dir: Path | None = None
    instance: str = LOCAL_INSTANCE
    http_host: str = "127.0.0.1"
    http_port: int = 8080
    addresses: AddressPolicy = field(default_factory=AddressPolicy)
