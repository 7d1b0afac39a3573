#!/usr/bin/env bash
# Makes the peers that `hardn bench` and the fixture scripts compare against. Nothing that hardn itself does needs them.
#
#   scripts/peers.sh [DIR]                          a Python environment with PyTorch, transformers and PEFT (default: .venv)
#   scripts/peers.sh [DIR] --llama-cpp WHERE        and llama.cpp's benchmark, built for this processor into WHERE; needs
#                                                   cmake, a C++ compiler and a few minutes
set -euo pipefail
where=".venv"
llama=""
while [ $# -gt 0 ]; do
    case "$1" in
        --llama-cpp) llama="${2:?say where: scripts/peers.sh --llama-cpp WHERE}"; shift 2 ;;
        *) where="$1"; shift ;;
    esac
done
[ -x "$where/bin/python" ] || python3 -m venv "$where"
"$where/bin/pip" install --quiet torch transformers peft numpy scipy statsmodels gguf
echo "peers are in $where; use: hardn bench --peer-python $where/bin/python"
[ -n "$llama" ] || exit 0

# The source archive of its Python binding carries llama.cpp; only the benchmark is built.
version="0.3.36"
sources="$(mktemp -d)"
trap 'rm -rf "$sources"' EXIT
"$where/bin/python" - "$version" "$sources/archive.tar.gz" <<'PYTHON'
import hashlib, json, os, sys, urllib.parse, urllib.request

version, out = sys.argv[1:]
index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
page = f"{index}/llama-cpp-python/"
question = urllib.request.Request(page, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
with urllib.request.urlopen(question) as answer:
    files = json.load(answer)["files"]
source = next(file for file in files if file["filename"] == f"llama_cpp_python-{version}.tar.gz")
with urllib.request.urlopen(urllib.parse.urljoin(page, source["url"])) as answer:
    data = answer.read()
if hashlib.sha256(data).hexdigest() != source["hashes"]["sha256"]:
    sys.exit("the archive of llama-cpp-python is not what its index says")
with open(out, "wb") as file:
    file.write(data)
PYTHON
tar -xzf "$sources/archive.tar.gz" -C "$sources"
cmake -S "$sources"/llama_cpp_python-*/vendor/llama.cpp -B "$sources/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF >"$sources/log"
cmake --build "$sources/build" --target llama-batched-bench --parallel >>"$sources/log"
mkdir -p "$llama"
cp "$sources/build/bin/llama-batched-bench" "$llama/"
echo "of llama-cpp-python $version" >"$llama/VERSION"
echo "llama.cpp is in $llama; use: hardn bench --only decode --peer-python $where/bin/python --peer-llama $llama"
