#!/usr/bin/env bash
# Any command under mpirun, with the flags that its vendor and slow networks need: for scripts, and for your own loops.
#
#   source .venv/bin/activate
#   launch/mpirun.sh -n 2 python examples/own_loop.py
#   launch/mpirun.sh --hosts launch/hosts.example -n 8 ddpgd doctor
#   launch/mpirun.sh --hosts FILE --machines          lists them, "NAME SLOTS" a line, and starts nothing
#
# Inside a Slurm allocation, ranks go to its nodes. INT and TERM end the ranks at once; the other launchers turn them into checkpoints.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh"
# shellcheck source=launch/hosts.sh
source "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"

machines=''
if [[ ${1-} == --hosts ]]; then
    [[ -f ${2-} ]] || refuse "--hosts wants a host file, as in: $0 --hosts launch/hosts.example -n 8 ddpgd doctor"
    machines=$(read_hosts "$2")
    shift 2
    if [[ ${1-} == --machines ]]; then
        printf '%s\n' "$machines"
        exit
    fi
fi
[[ ${1-} != -n || (${2-} =~ ^[1-9][0-9]{0,5}$ && $# -ge 3) ]] || refuse "type -n RANKS COMMAND, as in: $0 -n 2 ddpgd doctor"
(($#)) || refuse "type a command, as in: $0 -n 2 ddpgd doctor"
mpirun=$(type -P mpirun || type -P mpiexec) || refuse "no mpirun on PATH: type source .venv/bin/activate, or install one"
choose_mpirun "$mpirun"
[[ -z $machines ]] || place_on "$machines"
trap - PIPE
exec_mpirun "$@"
