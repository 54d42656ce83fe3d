#!/usr/bin/env bash
# Several ranks share one GPU, through NVIDIA's Multi-Process Service: to try out many ranks on one GPU, or to fill a large GPU
# that a small network's rank leaves idle. Without it, ranks of one GPU take turns.
#
#   launch/mps.sh RANKS [arguments of ddpgd train]          launch/mps.sh 4 --epochs 5
#
# Needs: a GPU and nvidia-cuda-mps-control, which comes with the driver. The service is started for this run, and ends with it;
# each rank may use its share of the GPU's multiprocessors, or all of them where cuBLAS computes products: it chooses its kernels
# by the multiprocessors that it sees, and bits must not depend on the number of ranks. CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=P sets
# the share for any number of ranks. The GPU is the first of CUDA_VISIBLE_DEVICES, or GPU 0.
# Ctrl-C, INT, TERM, HUP or USR1: the ranks write a checkpoint and end with code 75; once more: they end at once, without one.
# The exit code is that of the ranks.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh"
# shellcheck source=launch/ranks.sh
source "$(dirname "${BASH_SOURCE[0]}")/ranks.sh"

# share_multiprocessors RANKS: each rank gets its part of the GPU, where only own kernels compute.
share_multiprocessors() {
    [[ -z ${CUDA_MPS_ACTIVE_THREAD_PERCENTAGE-} ]] || return 0
    if "$PYTHON" -P -c 'import sys, importlib.util as u; sys.exit(u.find_spec("nvmath") is None)'; then
        say "cuBLAS is installed, so each rank may use the whole GPU: the bits of its products depend on the multiprocessors it sees"
        return
    fi
    export CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=$((100 / $1 > 0 ? 100 / $1 : 1))
}

[[ ${1-} =~ ^[1-9][0-9]{0,5}$ ]] || refuse "type how many ranks share the GPU, as in: $0 4 --epochs 5"
type -P nvidia-cuda-mps-control >/dev/null ||
    refuse "no nvidia-cuda-mps-control here: it comes with NVIDIA's driver; without a GPU type RANKS=$1 launch/local.sh"

service=$(mktemp -d -t ddpgd-mps-XXXXXX)
end_service() {
    echo quit | nvidia-cuda-mps-control >/dev/null 2>&1 || true
    rm -rf "$service"
}
trap end_service EXIT

setup run
export CUDA_MPS_PIPE_DIRECTORY=$service CUDA_MPS_LOG_DIRECTORY=$service
share_multiprocessors "$1"
gpu=${CUDA_VISIBLE_DEVICES:-0}
CUDA_VISIBLE_DEVICES=${gpu%%,*} nvidia-cuda-mps-control -d ||
    refuse "nvidia-cuda-mps-control -d fails (above): is the GPU in exclusive mode, or another service running?"
unset CUDA_VISIBLE_DEVICES # the service shows that GPU alone, as number 0
stay_on_this_machine
run_ranks "$1" --share-gpu "${@:2}"
