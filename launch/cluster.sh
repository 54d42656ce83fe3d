#!/usr/bin/env bash
# Several machines that you reach by ssh, without a scheduler.
#
#   launch/cluster.sh HOSTFILE [arguments of ddpgd train]       launch/cluster.sh launch/hosts.example --epochs 5
#
# HOSTFILE: a machine a line and its number of ranks, as in launch/hosts.example. Wanted of each machine: ssh from here without
# a password, and this folder, its .venv included, at the same path (a shared file system, or a copy); the data too.
# Ctrl-C, INT, TERM or HUP: the ranks write a checkpoint and leave with code 75; once more: they end at once, without one.
# The exit code is that of the ranks. Success is a run folder whose summary.json says "complete", on this machine.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh"
# shellcheck source=launch/ranks.sh
source "$(dirname "${BASH_SOURCE[0]}")/ranks.sh"

# Prints "NAME SLOTS" for each machine of a host file.
read_hosts() {
    local name rest
    while read -r name rest || [[ -n $name ]]; do
        [[ -z $name || $name == \#* ]] && continue
        if [[ $rest =~ ^slots=([1-9][0-9]*)$ ]]; then
            echo "$name ${BASH_REMATCH[1]}"
        elif [[ -z $rest ]]; then
            echo "$name 1"
        else
            refuse "$1: \"$name $rest\" is not a machine; type a line as: gpu-a slots=4"
        fi
    done <"$1"
}

hosts=${1-}
[[ -f $hosts ]] || refuse "type a host file, as in: $0 launch/hosts.example --epochs 5"
machines=$(read_hosts "$hosts")
[[ -n $machines ]] || refuse "$hosts names no machine; type a line as: gpu-a slots=4"
setup run
ranks=0 list=''
while read -r name slots; do
    ranks=$((ranks + slots))
    list+=${list:+,}$name:$slots
done <<<"$machines"
case $("${MPIRUN[0]}" --version 2>&1) in
    *"Open MPI"*) MPIRUN+=(--host "$list") ;;
    *) MPIRUN+=(-hosts "$list") ;;
esac
run_ranks "$ranks" "${@:2}"
