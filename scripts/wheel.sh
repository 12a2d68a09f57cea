#!/usr/bin/env bash
# Builds the wheel into dist/: native module, SDK, agent and command: wheel.sh VENV [CARGO_PROFILE]
#
# maturin builds a module or a program, not both in one wheel, so the program is built first and put
# where maturin finds the files that pip installs as scripts (`data` in pyproject.toml).
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 profile=${2:-release}

cargo build --quiet --workspace --profile "$profile"
target=${CARGO_TARGET_DIR:-target}/$([ "$profile" = dev ] && echo debug || echo "$profile")
mkdir -p schedulemesh.data/scripts
cp "$target/schedulemesh" schedulemesh.data/scripts/schedulemesh
"$venv/bin/maturin" build --quiet --profile "$profile" --out dist
rm -rf schedulemesh.data
ls -l dist/*.whl
