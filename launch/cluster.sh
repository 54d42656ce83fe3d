#!/usr/bin/env bash
# Several machines that you reach by ssh, without a scheduler.
#
#   launch/cluster.sh HOSTFILE [arguments of ddpgd train]       launch/cluster.sh launch/hosts.example --accumulate 1
#   RUN=runs/first launch/cluster.sh HOSTFILE ...               in that folder, and on from its newest whole checkpoint
#
# HOSTFILE: a machine a line and its number of ranks, as in launch/hosts.example. Each machine needs: ssh from here without a
# password, this folder with its .venv and .venvs at the same path (a shared file system, or a copy), and the data.
# Other arguments are passed to `ddpgd train`.
# Ctrl-C, INT, TERM, HUP or USR1: the ranks write a checkpoint and end with code 75; once more: they end at once, without one.
# The exit code is that of the ranks. Success is a run folder whose summary.json says "complete": rank 0 writes it, on the first
# machine of the file; with RUN, name a folder that all share.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh"
# shellcheck source=launch/ranks.sh
source "$(dirname "${BASH_SOURCE[0]}")/ranks.sh"
# shellcheck source=launch/hosts.sh
source "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"

hosts=${1-}
[[ -f $hosts ]] || refuse "'$hosts' is no host file; type one, as in: $0 launch/hosts.example --accumulate 1"
machines=$(read_hosts "$hosts")
setup run
place_on "$machines"
run_ranks "$SLOTS" "${@:2}"
