"""A control plane of our own: etcd and kube-apiserver on loopback, for as long as the tests run."""

from __future__ import annotations

import os
import secrets
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tablewatcher.embedded import free_port

KUBERNETES_VERSION = "v1.37.2"
START_SECONDS = 90
MISSING = "no etcd and kube-apiserver: run `make cluster`, or set KUBEBUILDER_ASSETS to a directory that holds them"


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """`kubeconfig`: a file that signs in as cluster-admin; `url`: the API server; `binaries`: kubectl may be there."""

    kubeconfig: Path
    url: str
    binaries: Path


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    binaries = _binaries()
    if binaries is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    directory = tmp_path_factory.mktemp("control-plane")
    with ExitStack() as stack:
        etcd_url = stack.enter_context(_etcd(binaries, directory))
        yield stack.enter_context(_api_server(binaries, directory, etcd_url))


def _binaries() -> Path | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    ours = cache / "tablewatcher" / "kubernetes" / KUBERNETES_VERSION / "bin"
    chosen = Path(os.environ.get("KUBEBUILDER_ASSETS") or ours)
    found = all(os.access(chosen / name, os.X_OK) for name in ("etcd", "kube-apiserver"))
    return chosen if found else None


@contextmanager
def _etcd(binaries: Path, directory: Path) -> Iterator[str]:
    client, peer = (f"http://127.0.0.1:{port}" for port in _two_ports())
    command = [
        str(binaries / "etcd"),
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
    ]
    with _running(command, directory / "etcd.log") as process:
        _wait_until_ready(process, f"{client}/health", directory / "etcd.log")
        yield client


@contextmanager
def _api_server(binaries: Path, directory: Path, etcd_url: str) -> Iterator[ControlPlane]:
    port = free_port()
    token = secrets.token_hex(16)
    tokens, key, log = directory / "tokens.csv", directory / "service-account.key", directory / "apiserver.log"
    tokens.touch(mode=0o600)
    tokens.write_text(f"{token},admin,admin,system:masters\n")
    openssl = shutil.which("openssl") or "openssl"
    subprocess.run([openssl, "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    command = [
        str(binaries / "kube-apiserver"),
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={directory / 'certificates'}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-cluster-ip-range=10.0.0.0/24",
        # Nothing here makes ServiceAccounts or Endpoints: there is no controller manager and no node.
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
    ]
    url = f"https://127.0.0.1:{port}"
    certificate = directory / "certificates" / "apiserver.crt"
    with _running(command, log) as process:
        _wait_until_ready(process, f"{url}/readyz", log, certificate, token)
        kubeconfig = directory / "kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(url, certificate, token)))
        yield ControlPlane(kubeconfig, url, binaries)


def _kubeconfig(url: str, certificate: Path, token: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(certificate)}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(
    process: subprocess.Popen[bytes],
    url: str,
    log: Path,
    certificate: Path | None = None,
    token: str = "",
) -> None:
    deadline = time.monotonic() + START_SECONDS
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    while time.monotonic() < deadline and process.poll() is None:
        try:
            trusted = ssl.create_default_context(cafile=str(certificate)) if certificate else None
            with urllib.request.urlopen(request, timeout=5, context=trusted):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    raise RuntimeError(f"{url} did not become ready:\n{log.read_text(errors='replace')[-3000:]}")


def _two_ports() -> tuple[int, int]:
    first = second = free_port()
    while second == first:
        second = free_port()
    return first, second
