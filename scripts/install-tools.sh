#!/usr/bin/env bash
# Installs the system tools hardn calls at run time (python3, gcc, g++) on Debian and Ubuntu.
# Rust itself comes from https://rustup.rs. `hardn doctor` says what is missing.
set -euo pipefail
if ! command -v apt-get >/dev/null; then
    echo "no apt-get here: install python3 (3.9 or newer), gcc and g++ with your package manager" >&2
    exit 1
fi
sudo=""
[ "$(id -u)" -eq 0 ] || sudo="sudo"
$sudo apt-get update -qq
$sudo apt-get install -y --no-install-recommends python3 gcc g++ libc6-dev
