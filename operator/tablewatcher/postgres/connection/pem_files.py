"""Certificates and keys as files: libpq takes them from files only, and a key only from one that is closed to others.

A mounted Secret is not. So a connection string has names in place of paths, and each connection has files of its own
for as long as it lives: libpq reads them again to cancel a statement.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from contextlib import ExitStack

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ...private_file import private_file

_PREFIX = "tablewatcher-pem-"
# Three a database, and as many for each rotation: far more than are in use at a time. Some 8 MB.
_MOST = 4096
_kept: dict[str, str] = {}


def kept(pem: str) -> str:
    """A name for this content in a connection string, as a path would be; the same content, the same name."""
    name = _PREFIX + hashlib.sha256(pem.encode()).hexdigest()
    _kept.pop(name, None)
    _kept[name] = pem  # as the newest
    if len(_kept) > _MOST:
        del _kept[next(iter(_kept))]
    return name


class Files:
    """The files that `conninfo` names by `kept`, open until `close`, or until nobody holds this any more.

    Its own `conninfo` has their paths.
    """

    def __init__(self, conninfo: str) -> None:
        self.close: Callable[[], object] = lambda: None
        self.conninfo = conninfo
        if _PREFIX not in conninfo:
            return
        with ExitStack() as files:
            paths = {
                parameter: files.enter_context(private_file(_kept[name]))
                for parameter, name in conninfo_to_dict(conninfo).items()
                if name in _kept
            }
            self.close = weakref.finalize(self, files.pop_all().close)
        self.conninfo = make_conninfo(conninfo, **paths)
