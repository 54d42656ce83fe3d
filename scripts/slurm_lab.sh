#!/usr/bin/env bash
# A Slurm of one node on this machine, for as long as a command runs: to try launch/slurm.sbatch for real.
#
#   sudo scripts/slurm_lab.sh sbatch --wait launch/slurm.sbatch --data synthetic --steps 100
#   sudo scripts/slurm_lab.sh bash              a shell in which sbatch, squeue, scontrol and scancel talk to it
#
# Wanted: root, and Debian's packages (apt install slurm-wlm munge). It has two partitions, "low", the default, and "urgent", whose
# jobs preempt those of low. All it writes is in a folder of its own, which goes when it ends; nothing in /etc is touched.
# Jobs that are still there when the command ends are cancelled.
set -euo pipefail

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
refuse() {
    say "$*"
    exit 2
}

(($#)) || refuse "type a command, as in: $0 sbatch --wait launch/slurm.sbatch --data synthetic --steps 100"
((EUID == 0)) || refuse "Slurm's daemons want root: type sudo $0 ..."
for program in slurmctld slurmd munged sbatch; do
    type -P "$program" >/dev/null || refuse "no $program here: apt install slurm-wlm munge"
done

LAB=$(mktemp -d -t ddpgd-slurm-XXXXXX)
daemons=()

stop() {
    local tries daemon
    if [[ -n ${SLURM_CONF:-} ]]; then
        scancel --user root 2>/dev/null || true
        for ((tries = 0; tries < 50; tries++)); do
            [[ -n $(squeue --noheader 2>/dev/null) ]] || break
            sleep 0.2
        done
    fi
    # The last to start ends first; slurmd alone may wait for what it started.
    for ((daemon = ${#daemons[@]} - 1; daemon >= 0; daemon--)); do
        kill -TERM "${daemons[daemon]}" 2>/dev/null || continue
        for ((tries = 0; tries < 25; tries++)); do
            kill -0 "${daemons[daemon]}" 2>/dev/null || continue 2
            sleep 0.2
        done
        kill -KILL "${daemons[daemon]}" 2>/dev/null || true
    done
    rm -rf "$LAB"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

start_munge() {
    mkdir "$LAB/munge"
    dd if=/dev/urandom of="$LAB/munge/key" bs=128 count=8 2>/dev/null
    chown -R munge: "$LAB/munge"
    chmod 755 "$LAB" "$LAB/munge"
    chmod 600 "$LAB/munge/key"
    setpriv --reuid=munge --regid=munge --clear-groups munged --foreground --force --key-file="$LAB/munge/key" \
        --socket="$LAB/munge/socket" --pid-file="$LAB/munge/pid" --seed-file="$LAB/munge/seed" \
        --log-file="$LAB/munge/log" >"$LAB/munged.out" 2>&1 &
    daemons+=($!)
}

configure() {
    local name cores memory
    name=$(hostname -s)
    cores=$(nproc)
    memory=$(awk '/^MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
    mkdir "$LAB/state" "$LAB/spool"
    cat >"$LAB/slurm.conf" <<CONF
ClusterName=lab
SlurmctldHost=$name(127.0.0.1)
SlurmUser=root
SlurmctldPort=$1
SlurmdPort=$2
AuthType=auth/munge
AuthInfo=socket=$LAB/munge/socket
CredType=cred/munge
StateSaveLocation=$LAB/state
SlurmdSpoolDir=$LAB/spool
SlurmctldPidFile=$LAB/slurmctld.pid
SlurmdPidFile=$LAB/slurmd.pid
SlurmctldLogFile=$LAB/slurmctld.log
SlurmdLogFile=$LAB/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
MinJobAge=3600
SchedulerParameters=sched_interval=2,batch_sched_delay=0
ReturnToService=2
MpiDefault=none
NodeName=$name NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF State=UP
CONF
    : >"$LAB/cgroup.conf"
    export SLURM_CONF=$LAB/slurm.conf
}

free_ports() {
    python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in held))'
}

start_slurm() {
    local ports tries
    ports=$(free_ports)
    # shellcheck disable=SC2086
    configure $ports
    slurmctld -D >"$LAB/slurmctld.out" 2>&1 &
    daemons+=($!)
    slurmd -D >"$LAB/slurmd.out" 2>&1 &
    daemons+=($!)
    for ((tries = 0; tries < 150; tries++)); do
        if [[ $(sinfo --noheader --format %T 2>/dev/null) == idle* ]]; then
            return
        fi
        sleep 0.2
    done
    tail -n 5 "$LAB"/*.log "$LAB"/*.out >&2 || true
    refuse "Slurm did not start within 30 s (above)"
}

start_munge
start_slurm
code=0
"$@" || code=$?
exit "$code"
