# shellcheck shell=bash disable=SC2034  # used by whoever sources this
# Every setting and every path, in one place. Sourced by all commands; the same values must be given to each.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
KUBERNETES_VERSION=v1.37.2

TWC_NAME=${TWC_NAME:-twc}
TWC_NET=${TWC_NET:-10.212}
TWC_CACHE=${TWC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tablewatcher/kubernetes/$KUBERNETES_VERSION}
TWC_STATE=${TWC_STATE:-/var/lib/tablewatcher-cluster/$TWC_NAME}
TWC_SYNC_FREQUENCY=${TWC_SYNC_FREQUENCY:-1m}
TWC_APISERVER_FLAGS=${TWC_APISERVER_FLAGS:-}
TWC_BASE_PACKAGES=${TWC_BASE_PACKAGES:-}
TWC_APT_SOURCES=${TWC_APT_SOURCES:-}

# The name ends up in interface names (15 characters at most, with our suffix) and in cgroup paths.
[[ $TWC_NAME =~ ^[a-z][a-z0-9]{0,9}$ ]] || { echo "error: TWC_NAME must be 1 to 10 of a-z and 0-9, a letter first" >&2; exit 2; }
[[ $TWC_NET =~ ^[0-9]{1,3}\.[0-9]{1,3}$ ]] || { echo "error: TWC_NET must be two octets, such as 10.212" >&2; exit 2; }

BIN=$TWC_CACHE/bin
IMAGES=$TWC_CACHE/images
PYTHON_BASE=localhost/python-base:3.11

NODE_NAME=$TWC_NAME-node
NAMESPACE=$TWC_NAME-node          # of the network, as `ip netns` lists it
HOST_LINK=$TWC_NAME-host
NODE_LINK=$TWC_NAME-node
HOST_IP=$TWC_NET.0.1
NODE_IP=$TWC_NET.0.2
POD_CIDR=$TWC_NET.1.0/24
SERVICE_CIDR=$TWC_NET.128.0/17
API_SERVICE_IP=$TWC_NET.128.1
DNS_IP=$TWC_NET.128.10

PKI=$TWC_STATE/pki
ETC=$TWC_STATE/etc
LOGS=$TWC_STATE/logs
PIDS=$TWC_STATE/pids
NODE_RECORD=$TWC_STATE/node
MARKER=$TWC_STATE/tablewatcher-cluster
CONTAINERD_SOCKET=$TWC_STATE/containerd.sock
KUBECONFIG_FILE=$TWC_STATE/kubeconfig

# Templates and the node's first process read these.
export TWC_NAME TWC_NET TWC_CACHE TWC_STATE TWC_SYNC_FREQUENCY TWC_APISERVER_FLAGS
export NODE_NAME NODE_IP POD_CIDR DNS_IP PKI ETC CONTAINERD_SOCKET
export PATH=$BIN:$PATH:/usr/sbin:/sbin
# A proxy for the outside world has no way to the cluster.
export NO_PROXY=${NO_PROXY:+$NO_PROXY,}$TWC_NET.0.0/16
export no_proxy=$NO_PROXY
