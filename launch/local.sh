#!/usr/bin/env bash
# One machine, with or without GPUs: a laptop, a workstation, one node of a cluster. Sets everything up on the first start.
#
#   launch/local.sh [arguments of ddpgd train]        launch/local.sh --epochs 5 --lr 0.2
#   RANKS=4 launch/local.sh ...                       as many ranks as you say
#   RUN=runs/first launch/local.sh ...                in that folder, and on from its newest whole checkpoint
#
# Other arguments are passed to `ddpgd train`.
# Without RANKS: one rank a GPU (as CUDA_VISIBLE_DEVICES allows), without GPUs one a core, at most 2.
# Ctrl-C, INT, TERM, HUP or USR1: the ranks write a checkpoint and end with code 75; once more: they end at once, without one.
# Ctrl-Z pauses the ranks, fg goes on. The exit code is that of the ranks. Ranks exchange through shared memory, not the network.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh"
# shellcheck source=launch/ranks.sh
source "$(dirname "${BASH_SOURCE[0]}")/ranks.sh"

count_gpus() {
    local listed visible=${CUDA_VISIBLE_DEVICES-all} ids
    listed=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ') || true
    if ((listed > 0)) && [[ $visible != all ]]; then
        IFS=, read -ra ids <<<"$visible"
        listed=${#ids[@]}
        [[ $visible == -1 ]] && listed=0
    fi
    echo "$listed"
}

count_ranks() {
    local gpus cores
    if [[ -n ${RANKS:-} ]]; then
        check_number RANKS "$RANKS"
        echo "$RANKS"
        return
    fi
    gpus=$(count_gpus)
    # nproc would count threads as these variables say, not cores.
    cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
    if ((gpus > 0)); then
        echo "$gpus"
    else
        echo $((cores < 2 ? cores : 2))
    fi
}

# Fetches the data once, before the ranks start; what a configuration file or a checkpoint names, they find themselves.
fetch_data() {
    local data='' named=''
    while (($#)); do
        case $1 in
            --data) data=${2-} ;;
            --data=*) data=${1#--data=} ;;
            --config | --config=* | --resume | --resume=*) named=yes ;;
        esac
        shift
    done
    if [[ -n $data && $data != synthetic ]]; then
        "$PYTHON" -P -m ddpgd data --data "$data"
    elif [[ -z $data && -z $named ]]; then
        "$PYTHON" -P -m ddpgd data
    fi
}

setup run
for argument; do
    if [[ $argument == -h || $argument == --help ]]; then
        exec "$PYTHON" -P -m ddpgd train --help
    fi
done
ranks=$(count_ranks)
fetch_data "$@"
stay_on_this_machine
run_ranks "$ranks" "$@"
