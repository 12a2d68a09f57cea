#!/usr/bin/env bash
# Runs the Rust tests with cargo-nextest where it is installed, else with cargo alone.
# Arguments go to nextest; cargo alone runs everything.
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --cargo-quiet --profile "${NEXTEST_PROFILE:-default}" "$@"
else
    cargo test --workspace --quiet
fi
