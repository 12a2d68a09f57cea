#!/usr/bin/env bash
# Makes the Python environment of this checkout: venv.sh PYTHON VENV
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 venv=$2

fail() { echo "setup: $*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "$python is not there; install Python 3.10 or later, or say PYTHON=/path/to/python"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
    || fail "$("$python" --version) is too old; Python 3.10 or later is needed (say PYTHON=/path/to/python)"
"$python" -c 'import ensurepip, venv' 2>/dev/null \
    || fail "$python cannot make environments; on Debian install the package python3-venv"
command -v cargo >/dev/null || fail "cargo is not there; install Rust 1.95 (rustup reads rust-toolchain.toml)"

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "setup: installing Python packages into $venv (Ray is large: a minute or two)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r scripts/requirements-dev.txt
touch "$venv/.requirements"
