# shellcheck shell=bash
# Talking to the person, waiting, locking, and knowing which process is the node.

# Exit status of a command that cannot run because something is not installed or not built.
EXIT_MISSING=3

clock() { date +%s%3N; }
seconds_since() { local ms=$(($(clock) - $1)); printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100)); }
note() { printf '%s\n' "$*" >&2; }
fail() { note "error: $*"; exit 1; }
missing() { note "error: $*"; exit "$EXIT_MISSING"; }
need_root() { [ "$(id -u)" = 0 ] || missing "$(basename "$0") must run as root"; }

usage() { # prints the comment at the head of the command, below its first line
  awk 'NR > 1 && /^#/ { sub(/^# ?/, ""); print; next } NR > 1 { exit }' "$0" >&2
  exit 2
}

# The lock is held on descriptor 9 until the command ends; what stays behind in the background must close it.
take_lock() {
  local file=$1 reason=$2
  mkdir -p "$(dirname "$file")"
  exec 9>"$file"
  flock --nonblock 9 || { note "waiting: $reason"; flock 9; }
}

await() { # SECONDS WHAT COMMAND...
  local seconds=$1 what=$2 began
  shift 2
  began=$(clock)
  until "$@" >/dev/null 2>&1; do
    (($(clock) - began < seconds * 1000)) || { "$@" >&2 || fail "no $what after $seconds s; logs are in $LOGS"; return; }
    sleep 0.2
  done
}

render() { # TEMPLATE, filled in from the exported settings; an unknown name is an error
  python3 -c 'import os, string, sys; print(string.Template(sys.stdin.read()).substitute(os.environ), end="")' \
    <"$HERE/templates/$1"
}

# Process ids are reused, so the record holds the start time too (field 22 of stat; the name may hold blanks).
started_at() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
record_node() { echo "$1 $(started_at "$1")" >"$NODE_RECORD"; }
node_process() { # prints the host's id of the node's first process, or fails
  local id start
  [ -s "$NODE_RECORD" ] || return 1
  read -r id start <"$NODE_RECORD"
  [ "$(started_at "$id")" = "$start" ] || return 1
  echo "$id"
}
inside() { # COMMAND... in the namespaces of the node
  local id
  id=$(node_process) || fail "cluster $TWC_NAME is not running; start it with hack/cluster/up"
  nsenter --target "$id" --mount --net --pid -- "$@"
}
admin() { "$BIN/kubectl" --kubeconfig "$KUBECONFIG_FILE" "$@"; }
import_archive() { ctr --address "$CONTAINERD_SOCKET" --namespace k8s.io images import "$1"; }
