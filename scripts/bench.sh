#!/usr/bin/env bash
# Measures everything that docs/benchmarks.md states, and writes that page anew: bench.sh VENV
#
# Nothing else should run on the machine meanwhile. Peers are installed from their registry into the
# development environment (`ray`); SQLite is the one that is built in. About fifteen minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

say() { printf '== %s\n' "$*" >&2; }

say "release build"
scripts/develop.sh "$venv" release

# The measured programs must be the optimised ones: the debug build is put back when this ends.
trap 'rm -rf "$out"; scripts/develop.sh "$venv"' EXIT

say "core"
cargo bench --quiet -p mesh-core --bench core | tee "$out/core.json" >&2
say "store"
cargo bench --quiet -p mesh-store --bench append | tee "$out/append.txt" >&2
say "recovery"
cargo bench --quiet -p mesh-cli --bench recovery | tee "$out/recovery.json" >&2
say "HTTP submissions"
cargo bench --quiet -p mesh-server --bench http_submit | tee "$out/http_submit.txt" >&2
say "end to end, beside native Ray and Ray Client"
"$venv/bin/python" python/bench/end_to_end.py | tee "$out/end_to_end.json" >&2
say "memory"
"$venv/bin/python" python/bench/memory.py | tee "$out/memory.json" >&2

"$venv/bin/python" python/bench/report.py "$out" > docs/benchmarks.md
say "wrote docs/benchmarks.md"
