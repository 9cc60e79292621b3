"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .results import Output


def text_option(value: str | None) -> str | None:
    """`value` of an option. Raises typer.BadParameter where it is not UTF-8, which no database takes."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("must be UTF-8 text") from None
    return value


def place(path: str) -> Path:
    """The path. Raises typer.BadParameter where it is empty."""
    # "" would be the directory we were started in, and all that is there be destroyed, say.
    if not path:
        raise typer.BadParameter("must name a file or directory: this one is empty")
    return Path(path)


def _dsn(value: str | None) -> str | None:
    # Empty as in `--dsn "$DSN"` where nobody has set that: not given.
    return (text_option(value) or "").strip() or None


def _host(value: str) -> str:
    if not value:
        raise typer.BadParameter("must name an address, such as 127.0.0.1, or 0.0.0.0 for all there are")
    return str(text_option(value))


def _instance(name: str) -> str:
    if not name.strip():
        raise typer.BadParameter("must name somebody, such as staging; without it, watchers are those of local")
    return str(text_option(name))


Files = Annotated[
    list[Path],
    typer.Option(
        "--file",
        "-f",
        help="Manifest, or a directory of them; may be given more than once.",
        parser=place,
        metavar="PATH",
    ),
]
Dsn = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        callback=_dsn,
        help="Connection string of the database; wins over the manifests' Secrets.",
        envvar="TABLEWATCHER_DSN",
    ),
]
SecretsDir = Annotated[
    Path | None,
    typer.Option(
        "--secrets-dir", help="Directory of Secrets as mounted: DIR/<secret>/<key>.", parser=place, metavar="DIR"
    ),
]
Instance = Annotated[
    str,
    typer.Option("--instance", callback=_instance, help="Who we are: watchers of another instance are never touched."),
]
Adopt = Annotated[
    str | None,
    typer.Option(
        "--adopt",
        callback=text_option,
        help="The home that watchers made in another database may move to, as the message CloneRefused names it.",
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="text or json.")]
Port = Annotated[int, typer.Option("--http-port", min=1, max=65535, help="Port of /metrics, /healthz and /readyz.")]
Host = Annotated[str, typer.Option("--http-host", callback=_host, help="Address that port is opened on.")]
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
