#!/bin/sh
# Builds the programs of the commit before into the directory $1. Ends with 3 where there is
# no such commit.
set -eu
dir=$1
if ! git rev-parse -q --verify 'HEAD~1^{commit}' >/dev/null 2>&1; then
	echo "there is no commit before this one: a shallow clone, or no repository" >&2
	exit 3
fi
rm -rf "$dir"
mkdir -p "$dir/source"
git archive 'HEAD~1' | tar -x -C "$dir/source"
cd "$dir/source"
CGO_ENABLED=0 go build -trimpath -o "$dir/preforkd" ./cmd/supervisor
CGO_ENABLED=0 go build -trimpath -o "$dir/preforkd-anchor" ./cmd/anchor
CGO_ENABLED=1 go build -trimpath -o "$dir/preforkd-worker" ./cmd/worker
