#!/usr/bin/env bash
# All that has to hold before a change goes in; stops at the first thing that does not.
#
#   scripts/test.sh                     everything, in this order
#   scripts/test.sh lint|unit|emulator|parallel|e2e ...      these parts
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

section() {
    printf '\n=== %s\n' "$*"
    "$@" || {
        local code=$?
        printf '\n=== failed with code %s: %s\n' "$code" "$*"
        exit "$code"
    }
}

lint() {
    section ruff check
    section ruff format --check
    section mypy
    section lint-imports
}

# On two processes, each with one BLAS thread.
unit() { OPENBLAS_NUM_THREADS=1 section python -m pytest -n 2 tests/unit; }

emulator() {
    command -v g++ >/dev/null || refuse "the CUDA kernels run on the CPU in tests, and that takes g++: apt install g++"
    OPENBLAS_NUM_THREADS=1 section python -m pytest -n 2 --dist loadfile tests/emulator
}

parallel() {
    local ranks color=no # ranks cannot tell: Open MPI gives them a terminal, whatever is behind it
    [[ -t 1 ]] && color=yes
    for ranks in 1 2 3 4; do
        section "${MPIRUN[@]}" -n "$ranks" python -m pytest --with-mpi "--color=$color" tests/parallel
    done
}

e2e() { section python -m pytest tests/e2e; }

for part; do
    case $part in
        lint | unit | emulator | parallel | e2e) ;;
        *) refuse "no part \"$part\": lint, unit, emulator, parallel and e2e are there, or nothing for all" ;;
    esac
done
setup test
cd "$ROOT"
export CUDA_VISIBLE_DEVICES='' # these tests are of CPUs; those that want a GPU are in scripts/gpu_check.sh
if (($# == 0)); then
    set -- lint unit emulator parallel e2e
fi
started=$SECONDS
for part; do
    "$part"
done
printf '\n=== passed: %s, in %s s\n' "$*" "$((SECONDS - started))"
