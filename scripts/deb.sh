#!/bin/sh
# Builds dist/preforkd_VERSION_ARCH.deb from the tree that install.sh has made in dist/root.
#
#   deb.sh VERSION [DIST]
#
# GO is the go command. The same commit gives the same bytes: every time stamp is the commit's,
# or SOURCE_DATE_EPOCH.
set -eu
cd "$(dirname "$0")/.."
dist=${2:-dist}
# The last one whose modules the Go proxy has in full: later ones need modules from a host of
# their own.
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
PREFORKD_VERSION=$(scripts/deb-version.sh "$1" "$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S)")
case $(uname -m) in
x86_64) PREFORKD_ARCH=amd64 ;;
aarch64 | arm64) PREFORKD_ARCH=arm64 ;;
*) echo "deb: no package for $(uname -m)" >&2 && exit 1 ;;
esac
PREFORKD_ROOT=$dist/root
# The youngest symbols of the C library that the worker and ONNX Runtime use.
PREFORKD_GLIBC=$(grep -aoh 'GLIBC_2\.[0-9]*' "$PREFORKD_ROOT/usr/bin/preforkd-worker" \
	"$PREFORKD_ROOT/usr/lib/preforkd/libonnxruntime.so.1" | sort -uV | tail -1 | sed 's/GLIBC_//')
export SOURCE_DATE_EPOCH PREFORKD_VERSION PREFORKD_ARCH PREFORKD_ROOT PREFORKD_GLIBC
find "$PREFORKD_ROOT" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
${GO:-go} run "$nfpm" package --config packaging/nfpm.yaml --packager deb \
	--target "$dist/preforkd_${PREFORKD_VERSION}_$PREFORKD_ARCH.deb"
