#!/usr/bin/env bash
# Makes a rank of mpirun believe that it is alone, with a GPU of its own: runs side by side that know nothing of each other.
#
#   mpirun -n 2 scripts/apart.sh ddpgd train --run-dir runs/RANK        RANK becomes the number of the rank
set -euo pipefail

rank=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-${SLURM_PROCID:-0}}}
: "${CUDA_VISIBLE_DEVICES=${OMPI_COMM_WORLD_LOCAL_RANK:-${MPI_LOCALRANKID:-${SLURM_LOCALID:-0}}}}"
export CUDA_VISIBLE_DEVICES
while read -r name; do
    case $name in
        OMPI_COMM_WORLD_* | PMIX_* | PMI_* | MPI_LOCALRANKID | SLURM_PROCID | SLURM_STEP_NUM_TASKS) unset "$name" ;;
    esac
done < <(compgen -e)
exec "${@//RANK/$rank}"
