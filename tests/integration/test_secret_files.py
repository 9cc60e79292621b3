"""Secrets and ConfigMaps as a kubelet mounts them."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tablewatcher.errors import Reason, SecretError
from tablewatcher.listener.secrets import DirectorySecrets

from .mounts import Mount

NOBODY = 65534
KEYSTORE = b"\xfe\xed\xfe\xed\x00\x00\x00\x02"


def test_keys_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    """cert-manager puts keystores beside a certificate, Strimzi beside an authority. The operator reads over them."""
    for folder in (tmp_path / "hook", tmp_path / "configmaps" / "ca"):
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_text("-----BEGIN")
        (folder / "keystore.jks").write_bytes(KEYSTORE)
    secrets = DirectorySecrets(tmp_path)
    assert secrets.read("hook") == secrets.config_map("ca") == {"ca.crt": "-----BEGIN"}


def test_the_mark_of_editors_of_windows_is_no_part_of_a_value(tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "uri").write_text("postgresql://h/d\n", encoding="utf-8-sig")
    assert DirectorySecrets(tmp_path).read("hook") == {"uri": "postgresql://h/d\n"}


def test_a_secret_without_any_text_has_no_keys(tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "keystore.jks").write_bytes(KEYSTORE)
    with pytest.raises(SecretError, match=r"has no keys in .*: put a file") as missing:
        DirectorySecrets(tmp_path).read("hook")
    assert missing.value.reason is Reason.SECRET_NOT_FOUND


def test_a_config_map_that_is_not_there_is_asked_for_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=rf"from {tmp_path}/configmaps/ca \(") as missing:
        DirectorySecrets(tmp_path).config_map("ca")
    assert missing.value.reason is Reason.CONFIG_MAP_NOT_FOUND


@contextlib.contextmanager
def _swapping(mount: Mount) -> Iterator[None]:
    """A kubelet that never rests: each version has its number in every key."""
    stop = threading.Event()

    def swap() -> None:
        for version in itertools.count(1):
            if stop.is_set():
                return
            mount.put({f"key-{nth}": str(version) for nth in range(5)})

    mount.put(dict.fromkeys(map("key-{}".format, range(5)), "0"))
    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        yield
    finally:
        stop.set()
        swapping.join()


def test_what_is_read_is_of_one_moment(tmp_path: Path) -> None:
    """Else a new certificate came with the old key now and then, and a password with the user before."""
    secrets = DirectorySecrets(tmp_path)
    with _swapping(Mount(tmp_path / "client")):
        read = [secrets.read("client") for _ in range(1000)]
    assert {len(values) for values in read} == {5}
    assert [values for values in read if len(set(values.values())) > 1] == []
    assert len({values["key-0"] for values in read}) > 10


def test_a_file_that_may_not_be_read_is_named() -> None:
    # Not below pytest's own directory, which is closed to others at some level.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "client").mkdir(mode=0o755)
        key = folder / "client" / "tls.key"
        key.write_text("hunter2")
        key.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(NOBODY)  # from root nothing is closed
        try:
            with pytest.raises(SecretError) as refused:
                DirectorySecrets(folder).read("client")
        finally:
            if user == 0:
                os.seteuid(user)
    assert f"{key} is closed to" in refused.value.message
    assert refused.value.reason is Reason.SECRET_NOT_FOUND
