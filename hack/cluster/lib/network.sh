# shellcheck shell=bash
# The node lives in a network namespace of its own (the kubelet refuses a loopback address, and the rules of kube-proxy
# and the bridge stay off the host). A pair of links joins it to the host; it has no default route, so a Pod reaches
# the node, Pods, Services and $HOST_IP, and nothing else in the world.

network_is_free() { ! ip -4 route show | awk '{ print $1 }' | grep -q "^${TWC_NET//./\\.}\."; }

make_network() {
  local in_namespace=(ip -n "$NAMESPACE")
  ip netns add "$NAMESPACE"
  ip link add "$HOST_LINK" type veth peer name "$NODE_LINK" netns "$NAMESPACE"
  ip address add "$HOST_IP/24" dev "$HOST_LINK"
  ip link set "$HOST_LINK" up
  "${in_namespace[@]}" link set lo up
  "${in_namespace[@]}" address add "$NODE_IP/24" dev "$NODE_LINK"
  "${in_namespace[@]}" link set "$NODE_LINK" up
  ip route add "$POD_CIDR" via "$NODE_IP"
  ip route add "$SERVICE_CIDR" via "$NODE_IP"
}

remove_network() {
  # Routes go with the link; bridge, firewall rules and the other end go with the namespace.
  ip link delete "$HOST_LINK" 2>/dev/null || true
  [ ! -e "/run/netns/$NAMESPACE" ] || ip netns delete "$NAMESPACE"
}
