#!/bin/bash
# container-box.sh - build and run own OCI images on this machine (no Docker engine, no registry).
#
#   container-box.sh build TAG DIR [buildah options]      build DIR/Containerfile (or Dockerfile)
#   container-box.sh run  [--memory 256m] [--cpus 0.5] ... TAG [ARGS]   any `podman run` option
#   container-box.sh bin  TAG ./static-binary             make TAG FROM scratch with the binary as entrypoint
#   container-box.sh base TAG                             make TAG (e.g. localhost/debian:bookworm-slim) from rootfs.sh, once
#   container-box.sh podman ...                           any podman command on the same store (stop, kill, inspect, logs, rm, rmi)
#   container-box.sh clean                                remove the store and the libpod_parent cgroups
#   container-box.sh check                                ends with 69 and the reason where this machine cannot do that
#
# Needs root, podman, buildah and runc (apt). The store is $CTBOX_HOME (default: container-box in
# $XDG_CACHE_HOME or ~/.cache), apart from podman's own. podman 4.3 + runc 1.1.5 from Debian 12;
# crun 1.8.1 refuses hybrid cgroups, and without CAP_SYS_RESOURCE podman's default rlimits cannot
# be set, so nofile and nproc are given. Memory, cpu and pids limits are real (cgroup v1).
# Use --network none or host: the default bridge works too (-p 127.0.0.1:18080:8080) but adds
# cni-podman0 and NAT rules to the host.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${CTBOX_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/container-box}

fail() { echo "container-box: $1" >&2; exit 69; }

[ "$(id -u)" = 0 ] || fail "not root"
for tool in podman buildah runc; do
  command -v $tool >/dev/null || fail "$tool is not installed"
done
mkdir -p "$home/run/tmp" || fail "cannot make $home/run/tmp"
export TMPDIR="$home/run/tmp" XDG_RUNTIME_DIR="$home/run/tmp"
store=(--root "$home/store" --runroot "$home/run")
podman=(podman "${store[@]}" --tmpdir "$home/run/tmp" --cgroup-manager=cgroupfs --events-backend=file --runtime runc)
build=(buildah "${store[@]}" bud --format docker --isolation chroot -q)
files=$(ulimit -Hn); [ "$files" = unlimited ] && files=1048576

verb=${1:-}; shift || true
case $verb in
  check)
    mkdir "/sys/fs/cgroup/memory/ctbox.$$" 2>/dev/null || fail "/sys/fs/cgroup/memory is not writable"
    rmdir "/sys/fs/cgroup/memory/ctbox.$$"
    out=$("${podman[@]}" info 2>&1) || fail "podman info: $(tail -1 <<<"$out")";;
  build) tag=$1 dir=$2; shift 2; exec "${build[@]}" "$@" -t "$tag" "$dir";;
  run) exec "${podman[@]}" run --pull=never --ulimit "nofile=$files:$files" --ulimit nproc=32768:32768 "$@";;
  bin)
    work=$(mktemp -d "$home/bin.XXXXXX"); trap 'rm -rf "$work"' EXIT
    cp "$2" "$work/app"
    printf 'FROM scratch\nCOPY app /app\nENTRYPOINT ["/app"]\n' >"$work/Containerfile"
    "${build[@]}" -t "$1" "$work";;
  base)
    exec 9>"$home/lock"; flock 9
    "${podman[@]}" image exists "$1" && exit
    root=$("$here/rootfs.sh") || exit
    tar -C "$root" --one-file-system -c . | "${podman[@]}" import - "$1" 9>&-;;
  podman) exec "${podman[@]}" "$@";;
  clean)
    "${podman[@]}" rm -af; "${podman[@]}" rmi -af
    for h in /sys/fs/cgroup/*/libpod_parent; do find "$h" -depth -type d -exec rmdir {} + ; done 2>/dev/null;;
  *) sed -n '2,10p' "$0"; exit 64;;
esac
