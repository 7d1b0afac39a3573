#!/bin/sh
# Makes a CUDA toolkit out of ordinary Python wheels, enough to build hardn with `--features cuda` on a machine
# without a GPU:
#
#   scripts/cuda-toolkit.sh DIR
#   CUDA_HOME=DIR/cuda CUDA_COMPUTE_CAP=90 PATH=DIR/cuda/bin:$PATH \
#       RUSTFLAGS="-L DIR/cuda/lib -L DIR/cuda/lib/stubs" cargo build --release --features cuda
#
# CUDA_COMPUTE_CAP is the GPU's compute capability without its dot: 80 for an A100, 89 for an L40, 90 for an H100 or H200.
# A binary built this way needs NVIDIA's driver, and the libraries in DIR/cuda/lib on LD_LIBRARY_PATH, to start.
set -eu

if [ $# -ne 1 ]; then
    sed -n '2,9p' "$0" | sed 's/^# \{0,1\}//' >&2
    exit 2
fi
mkdir -p "$1"
dir=$(cd "$1" && pwd)
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-deps \
    'nvidia-cuda-nvcc==13.2.*' 'nvidia-cuda-crt==13.2.*' 'nvidia-nvvm==13.2.*' 'nvidia-cuda-runtime==13.2.*' \
    'nvidia-cuda-cccl==13.2.*' 'nvidia-cuda-nvrtc==13.2.*' nvidia-cublas nvidia-curand
rm -rf "$dir/cuda"
cp -r "$dir"/venv/lib/python3*/site-packages/nvidia/cu13 "$dir/cuda"
cd "$dir/cuda"
# Wheels drop the executable bits and the links that a linker looks for.
chmod +x bin/* nvvm/bin/* 2>/dev/null || true
ln -sfn lib lib64
for library in lib/*.so.*; do
    name=${library%%.so.*}.so
    [ -e "$name" ] || ln -s "$(basename "$library")" "$name"
done
# The driver's library comes with the driver. To link without one, a library with the names of cuda.h stands in,
# apart from the others, so that it is never found when hardn runs.
mkdir -p lib/stubs
{
    grep -oE 'CUDAAPI +cu[A-Z][A-Za-z0-9_]*' include/cuda.h | grep -oE 'cu[A-Z][A-Za-z0-9_]*$'
    grep -oE '^ *# *define +cu[A-Z][A-Za-z0-9_]* +.*' include/cuda.h | grep -oE 'cu[A-Z][A-Za-z0-9]*(_v[0-9]+)?(_ptsz|_ptds)?'
} | sort -u | sed 's/.*/void &(void) {}/' |
    ${CC:-cc} -shared -x c - -Wl,-soname,libcuda.so.1 -o lib/stubs/libcuda.so
bin/nvcc --version | tail -2
echo "$dir/cuda"
