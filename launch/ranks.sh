# shellcheck shell=bash
# What the launchers share: `ddpgd train` under mpirun, for which INT, TERM, HUP and USR1 mean a checkpoint and code 75.
#
#   source launch/ranks.sh             after scripts/setup.sh
#   run_ranks RANKS [arguments]        with MPIRUN; the exit code is that of the ranks
#
# RUN=FOLDER: the run is in that folder, and goes on with its newest checkpoint where there is one: for jobs that start again.
# On several machines: a folder that all of them share, since rank 0 writes it, wherever it is.
# What was killed before its first checkpoint is moved aside.

# mpirun kills its ranks at TERM and INT, but passes USR1 on to them.
stop_ranks() {
    local signal=USR1
    interrupted=yes
    [[ -n $launcher ]] || return 0
    if [[ -z $stopping ]]; then
        stopping=yes
        say "stopping at the next step, with a checkpoint (once more: at once, without one)"
    else
        signal=TERM
    fi
    kill -"$signal" "$launcher" 2>/dev/null || true
}

run_ranks() {
    local live=() own=() code=0
    stopping='' launcher='' interrupted=yes
    trap stop_ranks INT TERM HUP USR1
    if [[ -t 1 ]]; then
        # What ranks see as their stdout says nothing of ours: Open MPI gives them a terminal without columns, others a pipe.
        DDPGD_TERMINAL=$(tput cols 2>/dev/null || echo 80)
        export DDPGD_TERMINAL
        live=(${MPIRUN_LIVE[@]+"${MPIRUN_LIVE[@]}"})
    fi
    if [[ -n ${RUN:-} ]]; then
        own=(--run-dir "$RUN")
        if [[ -e $RUN/checkpoints/latest ]]; then
            own+=(--resume)
        elif [[ -e $RUN/config.toml ]]; then
            say "$RUN has no checkpoint to go on from: it is now $RUN.lost-$$, and the run starts anew"
            mv "$RUN" "$RUN.lost-$$"
        fi
    fi
    # Job control gives mpirun a process group of its own, which the terminal's Ctrl-C does not reach.
    set -m
    "${MPIRUN[@]}" ${live[@]+"${live[@]}"} -n "$1" "$PYTHON" -m ddpgd train ${own[@]+"${own[@]}"} "${@:2}" </dev/null &
    launcher=$!
    set +m
    # wait returns early when a trapped signal comes: ask again until it tells how mpirun ended.
    while [[ -n $interrupted ]]; do
        interrupted='' code=0
        wait "$launcher" || code=$?
    done
    # USR1 came before the ranks had begun: there is nothing that the newest checkpoint, if any, does not have.
    [[ -z $stopping || $code != 138 ]] || code=75
    return "$code"
}
