"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .results import Output

Files = Annotated[
    list[Path], typer.Option("--file", "-f", help="Manifest, or a directory of them; may be given more than once.")
]
Dsn = Annotated[
    str | None,
    typer.Option(
        "--dsn", help="Connection string of the database; wins over the manifests' Secrets.", envvar="TABLEWATCHER_DSN"
    ),
]
SecretsDir = Annotated[
    Path | None, typer.Option("--secrets-dir", help="Directory of Secrets as mounted: DIR/<secret>/<key>.")
]


def _instance(name: str) -> str:
    if not name.strip():
        raise typer.BadParameter("must name somebody, such as staging; without it, watchers are those of local")
    return name


Instance = Annotated[
    str,
    typer.Option("--instance", callback=_instance, help="Who we are: watchers of another instance are never touched."),
]
Adopt = Annotated[
    str | None,
    typer.Option(
        "--adopt",
        help="The home that watchers made in another database may move to, as the message CloneRefused names it.",
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="text or json.")]
Port = Annotated[int, typer.Option("--http-port", min=1, max=65535, help="Port of /metrics, /healthz and /readyz.")]
Host = Annotated[str, typer.Option("--http-host", help="Address that port is opened on.")]
PublicOnly = Annotated[
    bool,
    typer.Option(
        "--http-public-only",
        help="Refuse HTTP sinks at loopback and private addresses, but for allowed ones and Services of the namespace.",
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option("--http-allow", help="Network or host that HTTP sinks may be at in any case; repeatable."),
]
Deny = Annotated[
    list[str] | None,
    typer.Option("--http-deny", help="Network or host that HTTP sinks may never be at; repeatable, and wins."),
]
