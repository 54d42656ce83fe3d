#!/usr/bin/env bash
# Makes a rank of mpirun believe that it is alone, with a GPU of its own: runs side by side that know nothing of each other.
#
#   mpirun -n 2 tools/one_rank_each.sh ddpgd train --run-dir runs/@RANK@        @RANK@ becomes the number of the rank
set -euo pipefail

rank=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-${SLURM_PROCID:-0}}}
local_rank=${OMPI_COMM_WORLD_LOCAL_RANK:-${MPI_LOCALRANKID:-${PMI_LOCAL_RANK:-${SLURM_LOCALID:-0}}}}
IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES-}"
if ((${#gpus[@]})); then
    export CUDA_VISIBLE_DEVICES=${gpus[local_rank % ${#gpus[@]}]}
elif [[ -z ${CUDA_VISIBLE_DEVICES+set} ]]; then
    export CUDA_VISIBLE_DEVICES=$local_rank
fi
while read -r name; do
    case $name in
        OMPI_COMM_WORLD_* | PMIX_* | PMI_* | MPI_LOCALRANKID | SLURM_PROCID | SLURM_LOCALID | SLURM_STEP_NUM_TASKS) unset "$name" ;;
    esac
done < <(compgen -e)
exec "${@//@RANK@/$rank}"
