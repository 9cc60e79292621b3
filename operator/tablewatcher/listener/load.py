"""Every watcher of the files that `-f` names. As a program: asked on standard input, answers on standard output."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable
from pathlib import Path

from ..errors import FieldError, SpecInvalid
from ..spec.model import WatcherSpec
from ..spec.parse import read_manifests
from .files import Manifests, manifest_files

_ABSENT = "it does not exist"
_STANDARD_INPUT = "for standard input write -f /dev/stdin, which `listen` and `run` cannot read twice"


def load(paths: Iterable[Path], *, require_secret: bool) -> Manifests:
    """Every watcher that can be read, and what is wrong with those that cannot: a bad one stops no good one.

    Of two watchers of one name neither is taken: nobody can say which is meant.
    """
    declared: dict[str, list[tuple[Path, WatcherSpec]]] = {}
    faults: list[SpecInvalid] = []
    faulty: set[Path] = set()
    deleted: set[Path] = set()
    for path in manifest_files(paths):
        if _is_deleted(path):
            faults.append(_unreadable(path, _ABSENT if str(path) != "-" else f"{_ABSENT}; {_STANDARD_INPUT}"))
            deleted.add(path)
            continue
        found, fault = _read(path, require_secret=require_secret)
        for spec in found:
            declared.setdefault(spec.qualified_name, []).append((path, spec))
        if fault is not None:
            faults.append(fault)
            faulty.add(path)
    for name, places in declared.items():
        if len(places) > 1:
            files = tuple(dict.fromkeys(path for path, _ in places))
            faults.append(_repeated(name, files))
            faulty.update(files)
    single = {name: places[0] for name, places in declared.items() if len(places) == 1}
    return Manifests(
        {name: spec for name, (_, spec) in single.items()},
        {name: path for name, (path, _) in single.items()},
        tuple(faults),
        frozenset(faulty),
        frozenset(deleted),
    )


def _is_deleted(path: Path) -> bool:
    """Whether it is gone from a directory that is still there: a directory that is gone may only be unmounted."""
    try:
        path.stat()
    except FileNotFoundError:
        return path.parent.is_dir()
    except OSError:
        pass  # closed to us, say: it may be there as it was
    return False


def _read(path: Path, *, require_secret: bool) -> tuple[list[WatcherSpec], SpecInvalid | None]:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        detail = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text; save it as UTF-8"
        return [], _unreadable(path, detail or "no reason given")
    return read_manifests(content, str(path), require_secret=require_secret)


def _unreadable(path: Path, detail: str) -> SpecInvalid:
    return SpecInvalid(str(path), (FieldError("-f", f"{path} cannot be read: {detail}"),))


def _repeated(name: str, files: Iterable[Path]) -> SpecInvalid:
    where = " and ".join(map(str, files))
    text = f"{name} is declared more than once (in {where}), so none of these is used: rename or remove all but one"
    return SpecInvalid(name, (FieldError("metadata.name", text),))


def main() -> None:
    """Answers `manifests.read`."""
    paths, require_secret = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent, over a pipe
    sys.stdout.buffer.write(pickle.dumps(load(paths, require_secret=require_secret)))


if __name__ == "__main__":
    main()
