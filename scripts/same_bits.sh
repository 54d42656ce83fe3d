#!/usr/bin/env bash
# Checks on your own cluster that 1 to N ranks train the same weights, bit for bit.
#
#   scripts/same_bits.sh N [arguments of ddpgd train]        scripts/same_bits.sh 4 --steps 500 --hidden 512,512
#   MPIRUN_FLAGS="--hostfile hosts" scripts/same_bits.sh 16  further flags for mpirun
#
# Without arguments: --steps 200 --seed 0. Each run has its own folder below TMPDIR (on several hosts: a shared one).
# Exit codes: 0 same bits; 4 not the same, and the folders stay; 2 wrong usage; else that of the run that failed.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# Prints params_sha256 of a run that is complete.
read_hash() {
    "$PYTHON" -P -c '
import json, sys
try:
    with open(sys.argv[1], encoding="utf-8") as file:
        summary = json.load(file)
except (OSError, ValueError) as error:
    sys.exit(f"no summary of the run: {error}")
if summary.get("complete") is not True:
    sys.exit(f"{sys.argv[1]}: the run is not complete")
print(summary["params_sha256"])' "$1"
}

# train RANKS ARGUMENTS...: trains on that many ranks and prints the hash of the weights; what the ranks print goes to a file.
train() {
    local ranks=$1 folder=$work/$1-ranks code=0 flags
    shift
    read -ra flags <<<"${MPIRUN_FLAGS:-}"
    TMPDIR=$work "${MPIRUN[@]}" ${flags[@]+"${flags[@]}"} -n "$ranks" "$PYTHON" -P -m ddpgd train "$@" --run-dir "$folder" \
        >"$folder.log" 2>&1 </dev/null || code=$?
    if ((code != 0)); then
        tail -n 20 "$folder.log" >&2
        say "the run with -n $ranks ended with code $code (above; all of it: $folder.log)"
        exit "$code"
    fi
    read_hash "$folder/summary.json"
}

[[ ${1:-} =~ ^[1-9][0-9]{0,5}$ && $1 -ge 2 ]] || refuse "a number of ranks from 2 is wanted, e.g. $0 4"
most=$1
shift
for argument; do
    [[ $argument != --run-dir && $argument != --run-dir=* ]] || refuse "--run-dir is chosen here, one for each run: leave it out"
done
if (($# == 0)); then
    set -- --steps 200 --seed 0
fi

setup run
[[ -n ${MPIRUN_FLAGS:-} ]] || stay_on_this_machine
work=$(mktemp -d "${TMPDIR:-/tmp}/same-bits.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "ddpgd train $* on 1 to $most ranks, in $work"
printf '%5s  %s\n' ranks params_sha256
first=''
for ((ranks = 1; ranks <= most; ranks++)); do
    hash=$(train "$ranks" "$@")
    printf '%5s  %s\n' "$ranks" "$hash"
    first=${first:-$hash}
    if [[ $hash != "$first" ]]; then
        trap - EXIT
        say "not the same bits: $ranks ranks are the first to differ from 1; the runs stay in $work"
        exit 4
    fi
done
echo "same bits on 1..$most ranks"
