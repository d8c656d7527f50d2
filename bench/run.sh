#!/usr/bin/env bash
# Compares aha with PyTorch, Hugging Face, TRL and llama.cpp on this machine: makes a Python environment where none is
# given, builds aha, measures both sides in turn. See README.md.
set -euo pipefail

usage="usage: bench/run.sh [--only ROW,...] [--without NAME] [--rounds N] [--venv DIR] [--model GGUF] [--out DIR]

  --only ROW,...  measure these rows again and keep the others (a name ending in * stands for all that begin so)
  --without NAME  leave out the others' variants with this in their name: bf16 takes twenty times as long where the
                  processor has no instructions for it
  --rounds N      how often each side runs [default: 5]
  --venv DIR      a Python environment that has the competitors [default: made in target/bench/venv, once]
  --model GGUF    Qwen2.5-0.5B in Q4_K_M; without it the rows of that model are skipped
  --out DIR       where results.json and results.md go [default: bench]

TORCH_INDEX=URL takes torch from that package index, for example the one of its smaller CPU builds."

fail() {
    echo "bench/run.sh: $1" >&2
    exit 2
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname "$here")
work="$repository/target/bench"
venv=""
arguments=()
while (($#)); do
    case $1 in
    -h | --help)
        echo "$usage"
        exit 0
        ;;
    --venv)
        [[ $# -ge 2 ]] || fail "--venv needs a folder"
        venv=$2
        shift 2
        ;;
    --only | --without | --rounds | --model | --out)
        [[ $# -ge 2 ]] || fail "$1 needs a value"
        arguments+=("$1" "$2")
        shift 2
        ;;
    *) fail "unknown argument $1; --help lists them" ;;
    esac
done

# llama.cpp for this processor, but with its AMX path off. Under GGML_NATIVE the GGML_AMX_* switches do nothing with gcc
# and clang (-march=native turns AMX on again), hence the compiler flags, which other architectures do not know.
install_llama() {
    local off=""
    [[ $(uname -m) == x86_64 ]] && off="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    CMAKE_ARGS="-DGGML_NATIVE=ON -DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF -DGGML_AMX_BF16=OFF -DLLAVA_BUILD=OFF" \
        CFLAGS="$off" CXXFLAGS="$off" "$1" -m pip install --no-binary llama-cpp-python llama-cpp-python
}

make_venv() {
    local python="$venv/bin/python"
    command -v python3 >/dev/null || fail "python3 is missing; install Python 3.11 or newer, or give --venv"
    command -v c++ >/dev/null || fail "a C++ compiler is missing; llama.cpp and torch.compile need one"
    python3 -m venv "$venv"
    "$python" -m pip install --upgrade pip
    "$python" -m pip install torch ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
    "$python" -m pip install transformers trl datasets accelerate gguf numpy cmake ninja
    PATH="$venv/bin:$PATH" install_llama "$python" || echo "llama.cpp did not build; its rows are skipped" >&2
    touch "$venv/complete"
}

if [[ -z $venv ]]; then
    venv="$work/venv"
    [[ -e $venv/complete ]] || make_venv
fi
[[ -x $venv/bin/python ]] || fail "$venv has no bin/python; make it with python3 -m venv, or leave --venv away"

cargo build --release --manifest-path "$repository/Cargo.toml"
export OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 RAYON_NUM_THREADS=2
exec "$venv/bin/python" "$here/compare.py" --work "$work" --aha "$repository/target/release/aha" "${arguments[@]}"
