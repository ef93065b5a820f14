#!/usr/bin/env bash
# Runs scripts/test-clients.py, Python's tritonclient against this service. The client is not in
# Debian: it comes from PyPI (https://pypi.org/project/tritonclient), with what it needs and with
# onnx, which makes the models, into a virtual environment below .cache/.
#
# TRITONCLIENT=2.62.0 takes that version, else it is the newest. PYTHON is the interpreter.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
venv=$root/.cache/test-clients

fail() {
	echo "test-clients: $1" >&2
	[[ -z ${2-} ]] || echo "  try: $2" >&2
	exit 1
}

[[ -x $root/bin/preforkd ]] || fail "bin/preforkd is not built" "make build"
"$python" -m venv "$venv" || fail "$python makes no virtual environment" \
	"apt-get install python3-venv, or set PYTHON"
"$venv/bin/pip" install --quiet --disable-pip-version-check \
	"tritonclient[http]${TRITONCLIENT:+==$TRITONCLIENT}" onnx ||
	fail "pip cannot install tritonclient[http] and onnx from PyPI" \
		"look at pip's output above; a mirror is set with PIP_INDEX_URL"

work=$(mktemp -d)
service=
stop() {
	if [[ -n $service ]]; then
		kill "$service" 2>/dev/null || true
		wait "$service" 2>/dev/null || true
	fi
	rm -rf "$work"
}
trap stop EXIT

"$venv/bin/python" "$root/scripts/test-clients.py" models "$work/models"
cp -r "$root/models/digits" "$work/models/"

# As in make run: a service that root starts must say whom its workers run as.
if [[ $(id -u) = 0 ]]; then
	export PREFORKD_USER=${PREFORKD_USER-root}
fi
"$root/bin/preforkd" serve --models "$work/models" --workers 2 --listen 127.0.0.1:0 \
	--set admin=off --set ops.listen=off --set "cache.dir=$work/cache" \
	>"$work/out" 2>"$work/log" &
service=$!

# The first line of its output, which comes when it is ready, has the address.
address=
for _ in {1..600}; do
	address=$(sed -n 's|.*http://\([0-9.:]*\).*|\1|p' "$work/out" | head -n 1)
	[[ -z $address ]] || break
	kill -0 "$service" 2>/dev/null || break
	sleep 0.1
done
if [[ -z $address ]]; then
	cat "$work/log" >&2
	fail "the service did not become ready"
fi
"$venv/bin/python" "$root/scripts/test-clients.py" check "$address" || {
	cat "$work/log" >&2
	fail "a check failed"
}
