# shellcheck shell=bash
# `ddpgd train` under mpirun, for all launchers: INT, TERM, HUP and USR1 mean a checkpoint and code 75, Ctrl-Z pauses the ranks.
#
#   source launch/ranks.sh             after scripts/setup.sh
#   run_ranks RANKS [arguments]        with MPIRUN; the exit code is that of the ranks
#
# RUN=FOLDER: the run is in that folder, and goes on with its newest whole checkpoint if there is one: for jobs that start again.
# On several machines: a folder that all of them share, since rank 0 writes it, on whichever machine it is.
# A run that was killed before its first checkpoint is moved aside.
# RESTARTS=3, with RUN: a run that a failure ends, such as the loss of a rank, is started again as often. With --elastic, Open MPI
# lets the other ranks go on when one dies.

# A signal during the set-up: nothing has begun.
stop_early() {
    say "SIG$1 came before the ranks had begun: nothing is lost, start again"
    exit 75
}
for name in INT TERM HUP USR1; do
    # shellcheck disable=SC2064
    trap "stop_early $name" "$name"
done

# mpirun kills its ranks at TERM and INT, but passes USR1 on to them. It acts first, and tells then.
stop_ranks() {
    interrupted=yes
    if [[ -z $launcher ]]; then
        stop_early "$1"
    elif [[ -z $stopping ]]; then
        stopping=yes
        kill -USR1 "$launcher" 2>/dev/null || true
        # mpirun drops what comes before it has started the ranks, and asking twice does no harm.
        (
            trap - INT TERM HUP USR1
            while sleep 2 && kill -USR1 "$launcher"; do :; done
        ) </dev/null >/dev/null 2>&1 &
        asker=$!
        say "stopping at the next step, with a checkpoint (once more: at once, without one)"
    else
        kill -TERM "$launcher" 2>/dev/null || true
        say "stopping at once, without a checkpoint"
    fi
}

# Ctrl-Z, and fg. mpirun passes both on to its ranks.
pause_ranks() {
    interrupted=yes
    kill -TSTP "$launcher" 2>/dev/null || true
    kill -STOP $$
    kill -CONT "$launcher" 2>/dev/null || true
}

# Sets own to the flags for the folder RUN. The program itself says which checkpoint is the newest whole one.
choose_run() {
    local said code=0 number=1
    own=()
    [[ -n ${RUN:-} ]] || return 0
    while [[ $RUN == */ && $RUN != / ]]; do RUN=${RUN%/}; done
    [[ $RUN != \~/* ]] || RUN=$HOME/${RUN#\~/}
    said=$("$PYTHON" -P -m ddpgd.run.newest "$RUN" 2>&1 >/dev/null) || code=$?
    own=("--run-dir=$RUN")
    case $code in
        0) own+=(--resume) ;;
        1) ;; # no run yet; if it was the program that failed, training fails as well, and says why
        3)
            while [[ -e $RUN.lost-$number ]]; do number=$((number + 1)); done
            mv "$RUN" "$RUN.lost-$number" || refuse "$RUN has no checkpoint to go on from, and cannot be moved aside (above)"
            say "$RUN had no checkpoint to go on from: it is now $RUN.lost-$number, and the run starts anew"
            ;;
        *) refuse "RUN=$RUN: ${said#ddpgd: }" ;;
    esac
}

run_ranks() {
    local code=0 left=${RESTARTS:-0}
    [[ $left == 0 ]] || check_number RESTARTS "$left"
    [[ $left == 0 || -n ${RUN:-} ]] || refuse "RESTARTS=$left needs a run to go on with: type RUN=runs/first as well"
    start_ranks "$@" || code=$?
    while ((left > 0)) && may_end_better "$code"; do
        left=$((left - 1))
        say "the run ended with code $code and is started again; starts left after this one: $left"
        code=0
        start_ranks "$@" || code=$?
    done
    return "$code"
}

# Another start ends alike after success, wrong input, or a gradient that is not finite; and nobody wants one after a stop.
may_end_better() {
    [[ -z $stopping && $1 != 0 && $1 != 2 && $1 != 3 && $1 != 75 ]]
}

start_ranks() {
    local live=() own=() tolerant=() code=0 name
    stopping='' launcher='' asker='' interrupted=yes
    choose_run
    unset DDPGD_TERMINAL
    if [[ -t 1 ]]; then
        # Ranks cannot see their terminal: Open MPI gives them one without columns, others a pipe.
        DDPGD_TERMINAL=$(tput cols 2>/dev/null || echo 80)
        export DDPGD_TERMINAL
        live=(${MPIRUN_LIVE[@]+"${MPIRUN_LIVE[@]}"})
    fi
    for name; do
        [[ $name != --elastic ]] || tolerant=(${MPIRUN_TOLERANT[@]+"${MPIRUN_TOLERANT[@]}"})
    done
    for name in INT TERM HUP USR1; do
        # shellcheck disable=SC2064
        trap "stop_ranks $name" "$name"
    done
    # Job control gives mpirun a process group of its own, which the terminal's Ctrl-C does not reach.
    set -m
    exec_mpirun ${live[@]+"${live[@]}"} ${tolerant[@]+"${tolerant[@]}"} -n "$1" "$PYTHON" -P -m ddpgd train ${own[@]+"${own[@]}"} "${@:2}" </dev/null &
    launcher=$!
    set +m
    trap pause_ranks TSTP
    # wait returns early when a trapped signal comes: ask again until it tells how mpirun ended.
    while [[ -n $interrupted ]]; do
        interrupted='' code=0
        wait "$launcher" || code=$?
    done
    [[ -z $asker ]] || kill "$asker" 2>/dev/null || true
    if [[ -n $stopping && $code == 138 ]]; then
        say "the ranks had not begun: nothing is lost that the newest checkpoint, if any, does not hold"
        code=75
    elif ((code > 128)); then
        say "${MPIRUN[0]##*/} ended with code $code (SIG$(kill -l "$((code - 128))" 2>/dev/null || echo ?)); what the newest checkpoint holds is kept"
    elif [[ $code == 0 && ${#tolerant[@]} -gt 0 && -d ${RUN:-} ]] && ! grep -qs '"complete": true' "$RUN/summary.json"; then
        # An mpirun that tolerates deaths ends well even when nobody is left.
        say "$RUN has no summary: all ranks have died"
        code=1
    fi
    return "$code"
}
