#!/usr/bin/env bash
# A Slurm on this machine, for as long as a command runs: to try launch/slurm.sbatch for real. One node, or the hosts of a lab.
#
#   sudo tools/slurm_lab.sh sbatch --wait launch/slurm.sbatch --data synthetic --steps 100
#   sudo tools/slurm_lab.sh bash              a shell in which sbatch, squeue, scontrol and scancel talk to it
#   sudo python -m tools.netlab --hosts 2 --first -- tools/slurm_lab.sh --nodes host0,host1 sbatch --wait --nodes 2 ...
#
# Needs: root, and Debian's packages (apt install slurm-wlm munge). It has two partitions, "low", the default, and "urgent", whose
# jobs preempt those of low. All it writes is in a folder of its own, which goes when it ends; nothing in /etc is touched.
# Jobs have other numbers in each lab, since a job would otherwise continue runs/slurm-JOBID of an earlier lab.
# Jobs that are still there when the command ends are cancelled.
set -euo pipefail

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
refuse() {
    say "$*"
    exit 2
}

nodes=()
if [[ ${1-} == --nodes ]]; then
    IFS=, read -ra nodes <<<"${2-}"
    shift 2 || refuse "--nodes wants the hosts of a lab, as in: --nodes host0,host1"
    [[ ${nodes[0]-} == "$(hostname)" && -n ${PRTE_MCA_plm_ssh_agent-} ]] ||
        refuse "--nodes wants the hosts of a lab, the first of them this one: python -m tools.netlab --hosts 2 --first -- $0 ..."
fi
(($#)) && [[ $1 != -* ]] || refuse "type a command, as in: $0 sbatch --wait launch/slurm.sbatch --data synthetic --steps 100"
((EUID == 0)) || refuse "Slurm's daemons want root: type sudo $0 ..."
for program in slurmctld slurmd munged sbatch; do
    type -P "$program" >/dev/null || refuse "no $program here: apt install slurm-wlm munge"
done

type -P "$1" >/dev/null || refuse "no $1 here: type a command, as in: $0 sbatch --wait launch/slurm.sbatch --steps 100"

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
    local first=${nodes[0]-$(hostname -s)} address=127.0.0.1 cores memory
    ((${#nodes[@]} == 0)) || address=$first
    cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
    memory=$(awk '/^MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
    mkdir "$LAB/state"
    cat >"$LAB/slurm.conf" <<CONF
ClusterName=lab
SlurmctldHost=$first($address)
SlurmUser=root
SlurmctldPort=$1
SlurmdPort=$2
AuthType=auth/munge
AuthInfo=socket=$LAB/munge/socket
CredType=cred/munge
StateSaveLocation=$LAB/state
SlurmdSpoolDir=$LAB/spool-%n
SlurmctldPidFile=$LAB/slurmctld.pid
SlurmdPidFile=$LAB/slurmd-%n.pid
SlurmctldLogFile=$LAB/slurmctld.log
SlurmdLogFile=$LAB/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
MinJobAge=3600
FirstJobId=$(($(date +%s) % 60000000 + 1))
SchedulerParameters=sched_interval=2,batch_sched_delay=0
ReturnToService=2
MpiDefault=none
NodeName=DEFAULT CPUs=$cores RealMemory=$memory State=UNKNOWN
$(node_lines "$first" "$address")
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF State=UP
CONF
    echo CgroupPlugin=cgroup/v1 >"$LAB/cgroup.conf" # none is used; to look for one fails in a lab, whose hosts have no /sys/fs/cgroup
    export SLURM_CONF=$LAB/slurm.conf
}

node_lines() {
    local node
    printf 'NodeName=%s NodeAddr=%s\n' "$1" "$2"
    for node in "${nodes[@]:1}"; do
        printf 'NodeName=%s NodeAddr=%s\n' "$node" "$node"
    done
}

free_ports() {
    python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in held))'
}

start_slurm() {
    local ports node tries
    ports=$(free_ports)
    # shellcheck disable=SC2086
    configure $ports
    slurmctld -D >"$LAB/slurmctld.out" 2>&1 &
    daemons+=($!)
    slurmd -D >"$LAB/slurmd.out" 2>&1 &
    daemons+=($!)
    for node in "${nodes[@]:1}"; do
        $PRTE_MCA_plm_ssh_agent "$node" slurmd -D >"$LAB/slurmd-$node.out" 2>&1 &
        daemons+=($!)
    done
    for ((tries = 0; tries < 150; tries++)); do
        if [[ $(sinfo --noheader --partition low --format %T 2>/dev/null) == idle ]]; then
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
