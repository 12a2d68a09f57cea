#!/usr/bin/env bash
# Builds the workspace and joins it with the Python sources: develop.sh VENV [CARGO_PROFILE]
#
# Python reads python/ in place; the native module and the command are copied from target/, and only
# when they changed. Copies are renamed into place, so that a process that runs the old file keeps it.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 profile=${2:-dev}

cargo build --quiet --workspace --profile "$profile"

target=${CARGO_TARGET_DIR:-target}/$([ "$profile" = dev ] && echo debug || echo "$profile")
place() {
    cmp --silent "$1" "$2" && return
    cp "$1" "$2.new"
    mv "$2.new" "$2"
}
place "$target/lib_native.so" python/schedulemesh/_native.abi3.so
place "$target/schedulemesh" "$venv/bin/schedulemesh"

site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$PWD/python" > "$site/schedulemesh-develop.pth"
