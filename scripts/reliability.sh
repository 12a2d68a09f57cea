#!/usr/bin/env bash
# Kills the real server again and again while clients and agents work with it, and judges what it kept.
#
#   scripts/reliability.sh            200 kills, as in CI: under five minutes on two cores
#   scripts/reliability.sh 2000       more of them
#   SEED=7 scripts/reliability.sh     the lives of one seed
#
# The server is built with failpoints into a target folder of its own, so that the developer's binary
# stays what it is. Where a tmpfs may be mounted, a small disk is filled up as well.
set -euo pipefail
cd "$(dirname "$0")/.."

kills="${1:-200}"
target="${CARGO_TARGET_DIR:-target}"
failpoints="$target/failpoints"
report="${REPORT:-$target/reliability}"
mkdir -p "$report"

cargo build --quiet --package mesh-cli --features failpoints,bugs --target-dir "$failpoints"
cargo build --quiet --package mesh-sim

tmpfs=()
probe="$(mktemp -d)"
if mount -t tmpfs -o size=1m none "$probe" 2>/dev/null; then
    umount "$probe"
    tmpfs=(--tmpfs)
else
    echo "no tmpfs may be mounted here: the full disk is left out" >&2
fi
rmdir "$probe"

"$target/debug/schedulemesh-sim" crash --kills "$kills" ${SEED:+--seed "$SEED"} "${tmpfs[@]}" \
    --server "$failpoints/debug/schedulemesh" --json "$report/crash.json"
