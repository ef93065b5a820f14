#!/bin/bash
# rootfs.sh - build the Debian 12 root file system of both boxes, once, and print its path.
#
# Takes about 100 s and 270 MB in $SDBOX_HOME (default: systemd-box in $XDG_CACHE_HOME or
# ~/.cache). Whoever finds another at work waits for it. Needs root and debootstrap;
# SDBOX_MIRROR=URL takes the packages from there. Ends with 69 and the reason where it cannot.
set -u
home=${SDBOX_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/systemd-box}
packages=systemd,systemd-sysv,dbus,libpam-systemd,procps,iproute2,curl,ca-certificates,strace,kmod
# Another list is another root file system.
root=$home/rootfs-$(cksum <<<"$packages" | cut -d' ' -f1)

fail() { echo "rootfs: $1" >&2; exit 69; }

remove() { # a build that was cut short may have left these mounted
  for m in "$1"/proc "$1"/sys; do
    while mountpoint -q "$m"; do umount "$m" || return; done
  done
  rm -rf --one-file-system "$1"
}

mkdir -p "$home" || fail "cannot make $home"
exec 9>"$home/lock"
flock 9 || fail "cannot lock $home/lock"
if [ ! -d "$root" ]; then
  [ "$(id -u)" = 0 ] || fail "not root"
  command -v debootstrap >/dev/null || fail "debootstrap is not installed"
  for old in "$home"/build.*; do [ -d "$old" ] && remove "$old"; done
  work=$(mktemp -d "$home/build.XXXXXX") || fail "cannot make a directory in $home"
  if ! debootstrap --variant=minbase --include="$packages" bookworm "$work" ${SDBOX_MIRROR:-} \
    >"$home/debootstrap.log" 2>&1 9>&-; then
    why=$(grep -v '^I: ' "$home/debootstrap.log" | tail -3)
    remove "$work"
    fail "debootstrap: ${why:-ended with an error; its output is in $home/debootstrap.log}"
  fi
  rm -rf "$work"/var/cache/apt/archives/*.deb "$work"/var/lib/apt/lists/*
  chmod 755 "$work"
  mv "$work" "$root" || fail "cannot rename $work to $root"
fi
echo "$root"
