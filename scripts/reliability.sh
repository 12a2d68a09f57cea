#!/usr/bin/env bash
# Tests the promises (docs/guarantees.md): simulated worlds of faults, faults planted to see whether
# they are noticed, and a real server that is killed again and again while clients and agents work
# with it. What the runs have shown is left in target/reliability, for the report.
#
#   scripts/reliability.sh                      as in CI: 2,000 worlds, every planted fault, 200 kills
#   SEEDS=200000 KILLS=2000 scripts/reliability.sh
#   SEED=7 scripts/reliability.sh               kills: the lives of one seed
#   REPORT=1 scripts/reliability.sh             write docs/reliability-report.md anew
set -euo pipefail
cd "$(dirname "$0")/.."

seeds="${SEEDS:-2000}"
kills="${KILLS:-200}"
target="${CARGO_TARGET_DIR:-target}"
shown="$target/reliability"
mkdir -p "$shown"

echo "--- $seeds simulated worlds"
cargo build --quiet --package mesh-sim
"$target/debug/schedulemesh-sim" run --seeds "$seeds" --json "$shown/simulated.json"

# The binaries with faults in them are copied away, so that the developer's own stay what they are.
echo "--- planted faults"
cargo build --quiet --package mesh-sim --features bugs
cp "$target/debug/schedulemesh-sim" "$shown/schedulemesh-sim-bugs"
"$shown/schedulemesh-sim-bugs" bugs --json "$shown/bugs.json"

echo "--- $kills kills of the real server"
cargo build --quiet --package mesh-cli --features failpoints,bugs
cp "$target/debug/schedulemesh" "$shown/schedulemesh-failpoints"
cargo build --quiet --package mesh-sim --package mesh-cli
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
    --server "$shown/schedulemesh-failpoints" --json "$shown/crashes.json"

if [ -n "${REPORT:-}" ]; then
    "$target/debug/schedulemesh-sim" report "$shown"
fi
