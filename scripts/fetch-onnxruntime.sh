#!/usr/bin/env bash
# Puts ONNX Runtime's shared library at .cache/onnxruntime/1.24.3/libonnxruntime.so.1.
#
# It comes from the npm package onnxruntime-node, the one place that has it for both
# architectures as a plain file under a fixed version. Only the archive is taken: npm
# runs no install script and installs nothing. The library must have the digest in
# third_party/onnxruntime.sha256 before it gets its name, so whatever lies there
# under that name is right, also when this is interrupted or runs twice at once.
#
# ONNXRUNTIME=/path/libonnxruntime.so uses that library; then nothing is downloaded.
set -euo pipefail

version=1.24.3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
pins=$root/third_party/onnxruntime.sha256
folder=$root/.cache/onnxruntime/$version
library=$folder/libonnxruntime.so.1

fail() {
	echo "fetch-onnxruntime: $1" >&2
	[[ -z ${2-} ]] || echo "  try: $2" >&2
	exit 1
}

digest() {
	local sum
	sum=$(sha256sum <"$1")
	echo "${sum%% *}"
}

if [[ -n ${ONNXRUNTIME-} ]]; then
	[[ -f $ONNXRUNTIME ]] || fail "ONNXRUNTIME=$ONNXRUNTIME: no such file" \
		"unset ONNXRUNTIME, or give the path of a libonnxruntime.so of version 1.24 or later"
	exit 0
fi

case $(uname -m) in
x86_64) arch=x64 ;;
aarch64 | arm64) arch=arm64 ;;
*) fail "onnxruntime-node $version has no Linux library for $(uname -m)" \
	"set ONNXRUNTIME=/path/libonnxruntime.so" ;;
esac

member=package/bin/napi-v6/linux/$arch/libonnxruntime.so.1
want=
while read -r sum name; do
	[[ $name != "$member" ]] || want=$sum
done <"$pins"
[[ -n $want ]] || fail "$pins: no digest of $member"

if [[ -f $library && $(digest "$library") == "$want" ]]; then
	exit 0
fi

command -v npm >/dev/null || fail "npm, which downloads ONNX Runtime, is not installed" \
	"apt-get install npm, or set ONNXRUNTIME=/path/libonnxruntime.so"

mkdir -p "$folder"
# What calls left that were killed; younger ones may be at work.
find "$folder" -maxdepth 1 -name '.fetch.*' -mmin +60 -exec rm -rf {} +
# On the file system of its destination, or the rename would be a copy.
work=$(mktemp -d "$folder/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

echo "fetch-onnxruntime: downloading onnxruntime-node $version" >&2
(cd "$work" && npm pack --ignore-scripts --loglevel=error "onnxruntime-node@$version" >npm.out 2>npm.err) || {
	cat "$work/npm.out" "$work/npm.err" >&2
	fail "npm pack onnxruntime-node@$version ended with an error" \
		"look at npm's output above, or set ONNXRUNTIME=/path/libonnxruntime.so"
}
archive=$work/onnxruntime-node-$version.tgz
[[ -f $archive ]] || fail "npm pack left no onnxruntime-node-$version.tgz"
tar -xzf "$archive" -C "$work" "$member" || fail "unpack $member of onnxruntime-node-$version.tgz"

got=$(digest "$work/$member")
[[ $got == "$want" ]] || fail "libonnxruntime.so.1 of onnxruntime-node $version ($arch) has the wrong digest and was thrown away
  sha256 is   $got
  must be     $want (third_party/onnxruntime.sha256)" \
	"look whether npm's registry or a proxy serves another package, or set ONNXRUNTIME=/path/libonnxruntime.so"

chmod 0644 "$work/$member"
mv -fT "$work/$member" "$library"
