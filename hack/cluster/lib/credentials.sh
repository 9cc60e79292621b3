# shellcheck shell=bash
# One certificate authority per start of the cluster, one certificate per component, and kubeconfigs from them.

DAYS=30

issue() { # NAME SUBJECT EXTENSION OPTION...
  local name=$1 subject=$2 extension=$3
  shift 3
  # A configuration of our own: the system's would add extensions that contradict ours.
  openssl req -x509 -config <(printf '[req]\ndistinguished_name = name\n[name]\n') -days $DAYS -noenc \
    -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -keyout "$PKI/$name.key" -out "$PKI/$name.crt" \
    -subj "$subject" -addext "$extension" "$@" 2>/dev/null || fail "openssl could not issue the certificate $name"
}
authority() { issue ca "/CN=$TWC_NAME" "basicConstraints=critical,CA:TRUE"; }
signed() { # NAME SUBJECT [ALTERNATIVE NAMES]
  issue "$1" "$2" "basicConstraints=CA:FALSE" -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" \
    ${3:+-addext "subjectAltName=$3"}
}

kubeconfig() { # USER, whose certificate is there
  local file=$ETC/$1.kubeconfig
  (umask 077 && cat >"$file") <<YAML
apiVersion: v1
kind: Config
current-context: $TWC_NAME
contexts:
- name: $TWC_NAME
  context:
    cluster: $TWC_NAME
    user: $1
clusters:
- name: $TWC_NAME
  cluster:
    server: https://$NODE_IP:6443
    certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$PKI/$1.crt")
    client-key-data: $(base64 -w0 "$PKI/$1.key")
YAML
}

make_credentials() {
  local service=kubernetes.default.svc user
  authority
  signed apiserver /CN=kube-apiserver \
    "IP:$NODE_IP,IP:$API_SERVICE_IP,IP:127.0.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:$service,DNS:$service.cluster.local"
  signed kubelet-server "/CN=$NODE_NAME" "IP:$NODE_IP,DNS:$NODE_NAME"
  signed apiserver-kubelet-client /O=system:masters/CN=kube-apiserver
  signed front-proxy-client /CN=front-proxy-client
  signed admin /O=system:masters/CN=admin
  signed kubelet "/O=system:nodes/CN=system:node:$NODE_NAME"
  for user in kube-controller-manager kube-scheduler kube-proxy; do signed $user "/CN=system:$user"; done
  for user in admin kubelet kube-controller-manager kube-scheduler kube-proxy; do kubeconfig $user; done
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$PKI/service-account.key" 2>/dev/null
  openssl pkey -in "$PKI/service-account.key" -pubout -out "$PKI/service-account.pub"
}
