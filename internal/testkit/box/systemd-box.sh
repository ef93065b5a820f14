#!/bin/bash
# systemd-box.sh - boot a real systemd (Debian 12, v252) as PID 1 of a throw-away container,
# run one command in it, print its output, shut down, and return the command's exit code.
#
#   systemd-box.sh [--bind HOSTDIR[:BOXDIR]]... [--bind-ro HOSTDIR[:BOXDIR]]... [--cgroup v1|v2]
#                  [--net private|host] [--timeout SEC] [--journal] [--debug] -- 'shell command'
#   systemd-box.sh check   ends with 69 and the reason where this machine cannot do that
#
# Needs root, debootstrap, systemd-container (apt). No systemd on the host is needed.
# The root file system (rootfs.sh) is built once and used read-only; each run writes to a tmpfs
# overlay, so nothing survives and runs may be parallel.
#   --cgroup v1  (default): cgroup v1 tree; MemoryMax=, CPUQuota=, TasksMax= of a unit are really
#                enforced (memory.limit_in_bytes, cpu.cfs_quota_us, pids.max).
#   --cgroup v2: unified tree, as on a modern host, with the controllers that version 1 left over:
#                often none, then the limits are accepted and not enforced.
#   --net private (default): own network name space with lo only; host: the machine's network.
#   --journal:   print what systemd wrote to its console as well.
# Everything it makes in /sys/fs/cgroup is called sdbox.<pid> and is removed at the end.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${SDBOX_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/systemd-box}
# The hybrid layout of systemd(1): version 1's controllers beside an empty unified tree.
hierarchies="systemd unified cpu cpuacct cpuset memory pids blkio devices freezer"

fail() { echo "systemd-box: $1" >&2; exit 69; }

check() {
  [ "$(id -u)" = 0 ] || fail "not root"
  for tool in systemd-nspawn unshare; do
    command -v $tool >/dev/null || fail "$tool is not installed"
  done
  [ -d /sys/fs/cgroup/memory ] && [ -d /sys/fs/cgroup/unified ] || fail "no hybrid cgroup tree in /sys/fs/cgroup"
  for h in memory unified; do
    mkdir "/sys/fs/cgroup/$h/sdbox.$$.check" 2>/dev/null || fail "/sys/fs/cgroup/$h is not writable"
    rmdir "/sys/fs/cgroup/$h/sdbox.$$.check"
  done
  unshare --mount mount -t tmpfs tmpfs /mnt 2>/dev/null || fail "mount is not permitted"
}

cgroup=v1 net=private limit=120 journal=0 debug=0 binds=()
[ "${1:-}" != check ] || { check; "$here/rootfs.sh" >/dev/null; exit; }
while [ $# -gt 0 ]; do case $1 in
  --bind | --bind-ro) binds+=("$1=$(realpath "${2%%:*}"):${2#*:}"); shift 2;;
  --cgroup) cgroup=$2; shift 2;;
  --net) net=$2; shift 2;;
  --timeout) limit=$2; shift 2;;
  --journal) journal=1; shift;;
  --debug) debug=1; shift;;
  --) shift; break;;
  *) echo "systemd-box: unknown option $1" >&2; exit 64;;
esac; done
[ $# -ge 1 ] || { sed -n '2,7p' "$0"; exit 64; }
command=$*
check
root=$("$here/rootfs.sh") || exit
work=$(mktemp -d "$home/run.XXXXXX") || fail "cannot make a directory in $home"

cat >"$work/cmd.sh" <<C
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root SYSTEMD_COLORS=0 SYSTEMD_PAGER=
systemctl is-system-running --wait >/dev/null 2>&1
$command
C
cat >"$work/box.service" <<'C'
[Unit]
Description=systemd-box command
After=multi-user.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=simple
ExecStart=/bin/bash /box/cmd.sh
StandardOutput=append:/box/out
StandardError=append:/box/out
KillMode=mixed
TasksMax=infinity
C
# PID 1 of the box: prepare the cgroup tree inside our own cgroup name space, then become systemd.
cat >"$work/init.sh" <<'C'
#!/bin/bash
exec >>/box/console 2>&1 </dev/null
if [ "$SDBOX_CG" = v1 ]; then
  umount -R /sys/fs/cgroup
  mount -t tmpfs -o mode=755,nosuid,nodev,noexec tmpfs /sys/fs/cgroup
  mkdir /sys/fs/cgroup/systemd; mount -t cgroup -o none,name=systemd,nosuid,nodev,noexec cgroup /sys/fs/cgroup/systemd
  for c in cpu cpuacct cpuset memory pids blkio devices freezer; do
    mkdir /sys/fs/cgroup/$c; mount -t cgroup -o $c,nosuid,nodev,noexec cgroup /sys/fs/cgroup/$c || rmdir /sys/fs/cgroup/$c
  done
fi
mkdir -p /run/systemd/system /etc/systemd/journald.conf.d
cp /box/box.service /run/systemd/system/box.service
printf '[Journal]\nStorage=volatile\nForwardToConsole=no\nRateLimitIntervalSec=0\n' >/etc/systemd/journald.conf.d/box.conf
for u in getty@.service console-getty.service systemd-modprobe@.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer dpkg-db-backup.timer systemd-timesyncd.service; do
  ln -sf /dev/null /etc/systemd/system/$u
done
mkdir -p /run/systemd/system/default.target.wants
printf "[Unit]\nDescription=box\nRequires=multi-user.target\nWants=box.service\nAfter=multi-user.target\nAllowIsolate=yes\n" >/run/systemd/system/box.target
unset SDBOX_CG
exec /lib/systemd/systemd --log-target=console --show-status=0 --log-level=notice systemd.unit=box.target
C
chmod +x "$work/init.sh"; : >"$work/out"; : >"$work/console"

me=sdbox.$$
boxkill() { # everything in our own part of the unified tree, and nothing else
  if [ -e /sys/fs/cgroup/unified/$me/cgroup.kill ]; then
    echo 1 >/sys/fs/cgroup/unified/$me/cgroup.kill
  else
    kill -KILL "$box"
  fi
}
cleanup() {
  [ -n "${box:-}" ] && kill -0 "$box" 2>/dev/null && boxkill
  for h in $hierarchies; do
    d=/sys/fs/cgroup/$h/$me
    for _ in 1 2 3 4 5 6 7 8 9 10; do # what was killed takes a moment to go
      [ -d "$d" ] || break
      find "$d" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    done
  done
  if [ $debug = 1 ]; then echo "kept $work" >&2; else rm -rf --one-file-system "$work"; fi
}
trap cleanup EXIT; trap 'exit 130' INT TERM

# A cgroup of its own in every hierarchy: the box sees it as its root and can touch nothing else.
for h in $hierarchies; do
  [ -d /sys/fs/cgroup/$h ] || continue
  mkdir /sys/fs/cgroup/$h/$me || fail "cannot make /sys/fs/cgroup/$h/$me"
  if [ $h = cpuset ]; then
    cat /sys/fs/cgroup/cpuset/cpuset.cpus >/sys/fs/cgroup/cpuset/$me/cpuset.cpus
    cat /sys/fs/cgroup/cpuset/cpuset.mems >/sys/fs/cgroup/cpuset/$me/cpuset.mems
    echo 1 >/sys/fs/cgroup/cpuset/$me/cgroup.clone_children
  fi
done
unified=0; [ "$cgroup" = v2 ] && unified=1
network=(); [ "$net" = private ] && network=(--private-network)
(
  for h in $hierarchies; do
    [ ! -d /sys/fs/cgroup/$h/$me ] || echo $BASHPID >/sys/fs/cgroup/$h/$me/cgroup.procs
  done
  exec env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=$unified SYSTEMD_NSPAWN_USE_CGNS=1 \
    systemd-nspawn -q -D "$root" -M "sdbox-${work##*.}" --volatile=overlay --register=no --keep-unit --pipe \
    --capability=all --system-call-filter='@keyring bpf' --kill-signal=SIGRTMIN+3 --setenv=SDBOX_CG="$cgroup" \
    --resolv-conf=off --timezone=off --link-journal=no ${network[@]+"${network[@]}"} \
    --bind="$work:/box" ${binds[@]+"${binds[@]}"} /box/init.sh </dev/null >>"$work/nspawn" 2>&1
) &
box=$!
tail -q -n +1 -f --pid=$box -s 0.1 "$work/out" &
tail=$!
(
  end=$((SECONDS + limit))
  while [ $SECONDS -lt $end ]; do sleep 1; kill -0 $box || exit; done
  echo "systemd-box: timed out after $limit s" >>"$work/out"
  boxkill
) >/dev/null 2>&1 &
guard=$!
{ wait $box; rc=$?; } 2>/dev/null
[ -e /sys/fs/cgroup/unified/$me/cgroup.kill ] && echo 1 >/sys/fs/cgroup/unified/$me/cgroup.kill
grep -q '^systemd-box: timed out' "$work/out" && rc=124
kill $guard 2>/dev/null; wait $guard 2>/dev/null
wait $tail 2>/dev/null
[ $journal = 1 ] && { echo "--- console"; cat "$work/console"; }
[ $rc -ne 0 ] && grep -v 'we can.t allow that' "$work/nspawn" >&2
exit $rc
