"""A real single-node Kubernetes for the end-to-end tests, started by `hack/cluster`.

The fixture `cluster` never reads a kubeconfig of the person who runs the tests: it uses the one that `hack/cluster/up`
has just printed, and only after making sure that it points at that cluster.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ROOT / "hack" / "cluster"
IMAGE = "localhost/tablewatcher:test"
EXIT_MISSING = 3
# Starting the cluster and building the image happen inside the first test's set-up.
TIMEOUT_SECONDS = 900
# Options that would lead kubectl or helm to another cluster than ours.
FOREIGN_OPTIONS = (
    "--kubeconfig",
    "--context",
    "--kube-context",
    "--cluster",
    "--server",
    "--kube-apiserver",
    "-s",
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster. `host_ip` is the address at which a process on this machine must listen to be reachable
    from Pods (give it a name with a Service without selector and an EndpointSlice); `image` is TableWatcher's image,
    loaded on the node: use imagePullPolicy Never."""

    name: str
    host_ip: str
    image: str
    environment: Mapping[str, str]

    def kubectl(self, *arguments: str, stdin: str = "", timeout_seconds: float = 120) -> str:
        """What `kubectl ARGUMENTS` prints. Raises AssertionError with its error output where it fails."""
        return self._run("kubectl", ("--context", self.name), arguments, stdin, timeout_seconds)

    def helm(self, *arguments: str, stdin: str = "", timeout_seconds: float = 180) -> str:
        """What `helm ARGUMENTS` prints. Raises AssertionError with its error output where it fails."""
        return self._run("helm", ("--kube-context", self.name), arguments, stdin, timeout_seconds)

    def node(self, *arguments: str, timeout_seconds: float = 60) -> str:
        """What `hack/cluster/node ARGUMENTS` prints (exec, restart, kill, logs)."""
        return self._run(str(COMMANDS / "node"), (), arguments, "", timeout_seconds)

    def _run(
        self,
        program: str,
        own: tuple[str, ...],
        arguments: tuple[str, ...],
        stdin: str,
        timeout_seconds: float,
    ) -> str:
        until_command = arguments[: arguments.index("--")] if "--" in arguments else arguments
        foreign = [word for word in until_command if own and word.partition("=")[0] in FOREIGN_OPTIONS]
        assert not foreign, f"{foreign} would leave the test cluster {self.name}"
        done = subprocess.run(
            [program, *own, *arguments],
            input=stdin,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}"
        return done.stdout


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Allow every test in this folder the time to be the one that starts the cluster."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


def require_prerequisites() -> None:
    """Fail on CI, skip elsewhere, where the cluster's binaries, packages or rights are not there."""
    check = subprocess.run([COMMANDS / "up", "--check"], capture_output=True, text=True, check=False)
    if check.returncode == 0:
        return
    message = f"no Kubernetes to test on: {check.stderr.strip()} (all of it: make cluster)"
    if check.returncode != EXIT_MISSING or os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def command_environment(exports: str, home: Path) -> dict[str, str]:
    """The environment of commands for the cluster: `exports` as a shell would take it, helm's folders in `home`."""
    shell = ["bash", "-c", 'eval "$1" && exec env -0', "bash", exports]
    raw = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    environment = dict(line.split("=", 1) for line in raw.split("\0") if line)
    folders = {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
    # A proxy for the outside world has no way to the cluster.
    own_net = environment["TWC_HOST_IP"].rsplit(".", 2)[0] + ".0.0/16"
    return environment | folders | {"no_proxy": own_net, "NO_PROXY": own_net}


def refuse_foreign_context(environment: Mapping[str, str]) -> str:
    """The name of the kubeconfig's context. Raises AssertionError unless it is the cluster just started: its API
    server has the node's address, beside the host's on the network between the two."""
    view = subprocess.run(
        ["kubectl", "config", "view", "--minify", "--output=json"],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=True,
    )
    configuration = json.loads(view.stdout)
    server = configuration["clusters"][0]["cluster"]["server"]
    own = f"https://{environment['TWC_HOST_IP'].rpartition('.')[0]}.2:6443"
    assert server == own, f"refusing to test on {server}: the cluster of hack/cluster is {own}"
    return str(configuration["current-context"])


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster with TableWatcher's image on its node. It is stopped at the end unless it was running before."""
    require_prerequisites()
    up = subprocess.run([COMMANDS / "up"], capture_output=True, text=True, check=False)
    assert up.returncode == 0, f"hack/cluster/up: {up.stderr.strip()}"
    was_running = "is running already" in up.stderr
    try:
        environment = command_environment(up.stdout, tmp_path_factory.mktemp("helm"))
        name = refuse_foreign_context(environment)
        dockerfile = ROOT / "operator" / "Dockerfile"
        build = (COMMANDS / "image", "build", IMAGE, ROOT, "-f", dockerfile)
        built = subprocess.run(build, capture_output=True, text=True, check=False)
        assert built.returncode == 0, f"the image does not build: {built.stderr.strip()[-4000:]}"
        yield Cluster(name=name, host_ip=environment["TWC_HOST_IP"], image=IMAGE, environment=environment)
    finally:
        if not was_running:
            subprocess.run([COMMANDS / "down"], capture_output=True, text=True, check=True)
