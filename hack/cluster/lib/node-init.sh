#!/usr/bin/env bash
# The node's first process, in network, mount and PID namespaces of its own: when it is killed the kernel ends every
# component, shim and container and drops every mount. It starts the components and starts them again when they end.
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
. "$HERE/lib/shell.sh"
set +e
trap '' HUP INT

# The components write to these folders of the host. Here each is a private one, so nothing is left on the host and
# two clusters never meet. Mounts must be shared below this point: the kubelet's volumes have to reach the containers.
private_folders() {
  local resolver
  mount --make-rshared /
  resolver=$(readlink -f /etc/resolv.conf)
  mkdir -p "$TWC_STATE"/private/{log,kubelet,cni} /var/lib/kubelet /var/lib/cni
  mount --bind "$TWC_STATE/private/log" /var/log
  mount --bind "$TWC_STATE/private/kubelet" /var/lib/kubelet
  mount --bind "$TWC_STATE/private/cni" /var/lib/cni
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/netns /run/lock
  [ ! -e "$resolver" ] || mount --bind "$ETC/resolv.conf" "$resolver"
}

network_settings() {
  echo 1 >/proc/sys/net/ipv4/ip_forward
  # Absent where the kernel has no br_netfilter; Services reached from a Pod on the same bridge need it.
  [ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
}

component() { # NAME OPTION...
  (
    while :; do
      "$@" >>"$LOGS/$1.log" 2>&1 &
      echo $! >"$PIDS/$1"
      wait $!
      status=$?
      echo "$(date +%T) $1 ended with status $status; starting it again"
      sleep 0.5
    done
  ) &
}

start_etcd() {
  # Without fsync: the state lives no longer than the cluster, and disks of CI machines are slow.
  component etcd --name=node --data-dir="$TWC_STATE/etcd" --unsafe-no-fsync --log-level=warn \
    --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
    --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
    --initial-cluster=node=http://127.0.0.1:2380
}

start_apiserver() {
  local extra
  read -ra extra <<<"$TWC_APISERVER_FLAGS"
  component kube-apiserver \
    --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address="$NODE_IP" --secure-port=6443 \
    --service-cluster-ip-range="$SERVICE_CIDR" \
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
    --client-ca-file="$PKI/ca.crt" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-signing-key-file="$PKI/service-account.key" \
    --service-account-key-file="$PKI/service-account.pub" \
    --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$PKI/apiserver-kubelet-client.crt" \
    --kubelet-client-key="$PKI/apiserver-kubelet-client.key" \
    --proxy-client-cert-file="$PKI/front-proxy-client.crt" --proxy-client-key-file="$PKI/front-proxy-client.key" \
    --requestheader-client-ca-file="$PKI/ca.crt" --requestheader-allowed-names=front-proxy-client \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --profiling=false "${extra[@]}"
}

start_controllers() {
  component kube-controller-manager --kubeconfig="$ETC/kube-controller-manager.kubeconfig" \
    --bind-address=127.0.0.1 --leader-elect=false --use-service-account-credentials \
    --root-ca-file="$PKI/ca.crt" --service-account-private-key-file="$PKI/service-account.key" \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key"
  component kube-scheduler --kubeconfig="$ETC/kube-scheduler.kubeconfig" --bind-address=127.0.0.1 --leader-elect=false
}

start_node_agents() {
  component kubelet --kubeconfig="$ETC/kubelet.kubeconfig" --config="$ETC/kubelet.yaml" \
    --root-dir=/var/lib/kubelet --node-ip="$NODE_IP" --hostname-override="$NODE_NAME"
  component kube-proxy --config="$ETC/kube-proxy.yaml" --hostname-override="$NODE_NAME"
}

until_true() { until "$@" >/dev/null 2>&1; do sleep 0.2; done; }

private_folders
network_settings
start_etcd
start_apiserver
component containerd --config "$ETC/containerd.toml"
until_true ctr --address "$CONTAINERD_SOCKET" version
for archive in "$IMAGES"/system-*.tar; do import_archive "$archive"; done
until_true "$BIN/kubectl" --kubeconfig "$ETC/admin.kubeconfig" get --raw /readyz
start_controllers
start_node_agents
# bash collects what it started; orphans land here too, being the first process, and are collected along.
while :; do wait -n || sleep 1; done
