#!/usr/bin/env bash
# Run everything that must hold before a change goes in; stop at the first thing that does not.
#
#   scripts/test.sh                                          everything but deep, in this order
#   scripts/test.sh lint|unit|emulator|parallel|e2e|deep ... these parts; deep: laws at length, which take minutes
#
# What is compiled is kept in DDPGD_TEST_CACHE, or in ddpgd-tests in the user's cache. DDPGD_TEST_PATIENCE=8 gives tests 8 times
# as long as on a quiet machine before they are taken to hang; without it, that is measured.
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

# Tests run on two processes, each with one BLAS thread.
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

# Three files at a time: one launches ranks while others wait.
e2e() { OMPI_MCA_mpi_yield_when_idle=1 section python -m pytest -n 3 --dist loadscope tests/e2e; }

deep() { OPENBLAS_NUM_THREADS=1 section python -m pytest -m deep -n 2 --dist loadscope tests/e2e tests/emulator; }

for part; do
    case $part in
        lint | unit | emulator | parallel | e2e | deep) ;;
        *) refuse "no part \"$part\": type lint, unit, emulator, parallel, e2e or deep, or nothing for all but deep" ;;
    esac
done
setup test
cd "$ROOT"
# A folder of their own: others in the same one may have left what an mpirun with their process number cannot start with.
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/tests.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
export CUDA_VISIBLE_DEVICES='' # these tests are of CPUs; those that want a GPU are in scripts/gpu_check.sh
if (($# == 0)); then
    set -- lint unit emulator parallel e2e
fi
started=$SECONDS
for part; do
    "$part"
done
printf '\n=== passed: %s, in %s s\n' "$*" "$((SECONDS - started))"
