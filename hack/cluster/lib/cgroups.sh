# shellcheck shell=bash
# The kubelet's cgroupRoot: one folder of the cluster's name in every hierarchy. It must exist, with CPUs and memory
# nodes assigned where cpuset is version 1, before the kubelet starts.

hierarchies() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts; }

make_cgroups() {
  local hierarchy file
  while read -r hierarchy; do
    mkdir -p "$hierarchy/$TWC_NAME"
    for file in cpuset.cpus cpuset.mems; do
      [ ! -e "$hierarchy/$TWC_NAME/$file" ] || cat "$hierarchy/$file" >"$hierarchy/$TWC_NAME/$file" 2>/dev/null || true
    done
  done < <(hierarchies)
  # Version 2 hands no controller down unless told to.
  if [ -e /sys/fs/cgroup/cgroup.subtree_control ]; then
    echo "+cpuset +cpu +io +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control ||
      note "warning: the cgroup controllers cannot be handed to the cluster; the kubelet may refuse to start"
  fi
}

remove_cgroups() {
  local hierarchy attempt
  while read -r hierarchy; do
    for attempt in 1 2 3 4 5 6; do
      [ -d "$hierarchy/$TWC_NAME" ] || break
      find "$hierarchy/$TWC_NAME" -depth -type d -exec rmdir {} + 2>/dev/null || sleep "0.$attempt"
    done
    [ ! -d "$hierarchy/$TWC_NAME" ] || note "warning: processes remain in $hierarchy/$TWC_NAME"
  done < <(hierarchies)
}
