# shellcheck shell=bash
# The MPI launcher: its flags, and a check that its ranks see each other. A part of scripts/setup.sh.

# choose_mpirun PATH: sets MPIRUN, MPIRUN_LIVE, MPIRUN_TOLERANT and DDPGD_MPIRUN.
choose_mpirun() {
    local launcher=$1
    MPIRUN_VERSION=$("$launcher" --version 2>&1) ||
        refuse "$launcher --version fails: mend that MPI, or type DDPGD_MPI=wheel $PROGRAM"
    MPIRUN=("$launcher")
    MPIRUN_LIVE=() MPIRUN_TOLERANT=() # read by launch/ranks.sh
    if [[ $MPIRUN_VERSION == *"Open MPI"* ]]; then
        # Over TCP, messages above the eager limit (64 KB) wait for the receiver's reply behind data of the other direction, and
        # reach about half of a slow link's rate.
        MPIRUN+=(--mca btl_tcp_eager_limit 33554432 --mca btl_tcp_rndv_eager_limit 33554432)
        if [[ $MPIRUN_VERSION == *"(Open MPI) 4."* ]]; then
            MPIRUN+=(--oversubscribe) # more ranks than cores may start; Open MPI then binds none of them
            MPIRUN+=(--quiet) # no notice of seven lines when ranks end with 2 or 75; without effect in 5.0 (open-mpi/ompi#12216)
        else
            # With --oversubscribe 5.0 starts all ranks on the first machine. As variables, since a flag cannot be given twice.
            export PRTE_MCA_rmaps_default_mapping_policy=${PRTE_MCA_rmaps_default_mapping_policy-slot:OVERSUBSCRIBE}
            export PRTE_MCA_hwloc_default_binding_policy=${PRTE_MCA_hwloc_default_binding_policy-none}
            # shellcheck disable=SC2034
            MPIRUN_LIVE=(--stream-buffering 0) # 5.0 holds back a line until it ends
            # shellcheck disable=SC2034
            MPIRUN_TOLERANT=(--with-ft ulfm)
            # A host that has not answered for 40 s ends the run; by default it takes 8 minutes.
            MPIRUN+=(--prtemca oob_tcp_keepalive_time 20 --prtemca oob_tcp_keepalive_intvl 5)
            MPIRUN+=(--prtemca oob_tcp_keepalive_probes 4)
        fi
        if ((EUID == 0)); then
            export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        fi
    fi
    DDPGD_MPIRUN=$(printf '%q ' "${MPIRUN[@]}")
    export DDPGD_MPIRUN=${DDPGD_MPIRUN% }
}

# exec_mpirun ARGUMENTS: becomes mpirun. One that was killed leaves a folder, in which none with its process number can start.
exec_mpirun() {
    local left=${TMPDIR:-/tmp}/ompi.${BASHPID:-none}
    [[ ! -O $left ]] || rm -rf -- "$left" || true
    exec "${MPIRUN[@]}" "$@"
}

# On one machine ranks exchange through shared memory alone: by default each rank of Open MPI also listens on all networks.
stay_on_this_machine() {
    [[ $MPIRUN_VERSION == *"Open MPI"* ]] || return 0
    [[ ${SLURM_JOB_NUM_NODES:-1} == 1 && -z ${PBS_NODEFILE:-}${LSB_DJOB_HOSTFILE:-}${PE_HOSTFILE:-} ]] || return 0
    if [[ $MPIRUN_VERSION == *"(Open MPI) 4."* ]]; then
        export OMPI_MCA_btl=${OMPI_MCA_btl-self,vader}
    else
        export OMPI_MCA_btl=${OMPI_MCA_btl-self,sm}
    fi
}

# Two ranks must see each other: with a library of another kind than mpirun's, each would be alone in its world.
check_mpi() {
    local said way="set MPI4PY_LIBMPI=/path/to/libmpi.so, or type DDPGD_MPI=wheel $PROGRAM"
    local checked=$VENV/setup.checked wanted="${MPI4PY_LIBMPI:-found by mpi4py}"
    if [[ -r $checked && $(<"$checked") == "$wanted" ]]; then
        return
    fi
    # Loads the library only: starting it without mpirun fails on many a login node.
    if ! said=$("$PYTHON" -P -c 'import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI' 2>&1); then
        refuse "mpi4py cannot load the library of ${MPIRUN[0]} (${said##*$'\n'}): $way"
    fi
    if ! said=$(exec_mpirun -n 2 "$PYTHON" -P -c 'from mpi4py import MPI; print("size", MPI.COMM_WORLD.size)' 2>&1 </dev/null); then
        printf '%s\n' "$said" >&2 2>/dev/null || true
        refuse "${MPIRUN[0]} cannot start two ranks (above): mend that MPI, or $way"
    fi
    if [[ $said != *"size 2"* ]]; then
        refuse "${MPIRUN[0]} started two ranks that do not see each other, since mpi4py loads another MPI library: $way"
    fi
    # In a checkout of somebody else, each start checks.
    { printf '%s\n' "$wanted" >"$checked"; } 2>/dev/null || true
}
