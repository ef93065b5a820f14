#!/bin/sh
# Puts what `make build` made into place, or takes it away again.
#
#   install.sh install|uninstall PROGRAMS
#
# PROGRAMS is the directory of the programs and the engine's library. From the environment:
# DESTDIR goes before every path and into none of the files, PREFIX (/usr/local), SYSCONFDIR
# (/etc); ONNXRUNTIME is the library where PROGRAMS has none.
#
# Each file is written beside its place and renamed: a running service holds the old one and
# goes on with it (docs/operations.md).
set -eu
verb=$1 programs=$2
prefix=${PREFIX:-/usr/local} config=${SYSCONFDIR:-/etc}/preforkd/preforkd.yaml
root=${DESTDIR:-}
source=$(cd "$(dirname "$0")/.." && pwd)
doc=$prefix/share/doc/preforkd

fail() {
	echo "install: $1" >&2
	echo "  try: $2" >&2
	exit 1
}

# put MODE FILE PLACE
put() {
	if [ "$verb" = uninstall ]; then
		rm -f "$root$3"
		return
	fi
	install -D -m "$1" "$2" "$root$3.new"
	mv -f "$root$3.new" "$root$3"
}

library=$programs/libonnxruntime.so.1
[ -e "$library" ] || library=${ONNXRUNTIME:-$library}
if [ "$verb" = install ]; then
	for file in "$programs/preforkd" "$programs/preforkd-anchor" "$programs/preforkd-worker" "$programs/preforkd-bench" "$programs/preforkd-broker" "$library"; do
		[ -f "$file" ] || fail "$file: no such file" "make build"
	done
fi

for name in preforkd preforkd-anchor preforkd-worker preforkd-bench preforkd-broker; do
	put 755 "$programs/$name" "$prefix/bin/$name"
done
put 644 "$library" "$prefix/lib/preforkd/libonnxruntime.so.1"

for unit in "$source"/systemd/*.service "$source"/systemd/*.socket; do
	[ -f "$unit" ] || continue # no such unit
	adjusted=$(mktemp)
	sed "s#/usr/\(bin\|share/doc\)/preforkd#$prefix/\1/preforkd#g" "$unit" >"$adjusted"
	put 644 "$adjusted" "$prefix/lib/systemd/system/${unit##*/}"
	rm -f "$adjusted"
done

for file in LICENSE NOTICE CHANGELOG.md; do
	[ ! -f "$source/$file" ] || put 644 "$source/$file" "$doc/$file"
done
put 644 "$source/configs/preforkd.yaml" "$doc/settings.yaml"
for file in preforkd_helper.py digit.py; do
	put 644 "$source/helpers/python/$file" "$doc/$file"
done

# The configuration is the operator's once it is there.
if [ "$verb" = install ]; then
	[ -e "$root$config" ] || put 644 "$source/packaging/preforkd.yaml" "$config"
elif cmp -s "$source/packaging/preforkd.yaml" "$root$config"; then
	rm -f "$root$config"
fi
if [ "$verb" = uninstall ]; then
	for dir in "$doc" "$prefix/lib/preforkd" "${config%/*}"; do
		rmdir "$root$dir" 2>/dev/null || [ ! -d "$root$dir" ] || echo "install: $root$dir is not empty and stays"
	done
fi
