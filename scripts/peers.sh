#!/usr/bin/env bash
# Makes a Python environment with the peers that `hardn bench` and the fixture scripts compare against.
# Nothing that hardn itself does needs it.
set -euo pipefail
where="${1:-.venv}"
python3 -m venv "$where"
"$where/bin/pip" install --quiet torch transformers peft numpy scipy statsmodels
echo "peers are in $where; use: hardn bench --peer-python $where/bin/python"
