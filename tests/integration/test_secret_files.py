"""Secrets and ConfigMaps as a kubelet mounts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tablewatcher.errors import Reason, SecretError
from tablewatcher.listener.secrets import DirectorySecrets

KEYSTORE = b"\xfe\xed\xfe\xed\x00\x00\x00\x02"


def test_keys_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    """cert-manager puts keystores beside a certificate, Strimzi beside an authority. The operator reads over them."""
    for folder in (tmp_path / "hook", tmp_path / "configmaps" / "ca"):
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_text("-----BEGIN")
        (folder / "keystore.jks").write_bytes(KEYSTORE)
    secrets = DirectorySecrets(tmp_path)
    assert secrets.read("hook") == secrets.config_map("ca") == {"ca.crt": "-----BEGIN"}


def test_a_secret_without_any_text_has_no_keys(tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "keystore.jks").write_bytes(KEYSTORE)
    with pytest.raises(SecretError, match="has no keys") as missing:
        DirectorySecrets(tmp_path).read("hook")
    assert missing.value.reason is Reason.SECRET_NOT_FOUND
