#!/usr/bin/env bash
# Test accuracy and training time over several seeds: mean, spread, and every value.
#
#   benchmarks/accuracy/run.sh SEEDS RANKS [arguments of ddpgd train]        benchmarks/accuracy/run.sh 5 2 --hidden 128 --epochs 20
#
# The run folders go to a temporary folder below TMPDIR, which is removed at the end.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/setup.sh"

for number in "${1-}" "${2-}"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || refuse "type a number of seeds and a number of ranks, e.g. $0 5 2"
done
seeds=$1 ranks=$2
shift 2
setup run
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for ((seed = 0; seed < seeds; seed++)); do
    "${MPIRUN[@]}" -n "$ranks" "$PYTHON" -m ddpgd train "$@" --seed "$seed" --quiet --run-dir "$folder/$seed"
done
"$PYTHON" - "$folder"/*/summary.json <<'PY'
import json
import statistics
import sys

runs = [json.load(open(path)) for path in sys.argv[1:]]
accuracies = [100 * run["test_accuracy"] for run in runs]
seconds = [run["train_s"] for run in runs]
spread = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
print(f"test accuracy: mean {statistics.mean(accuracies):.2f} %, sd {spread:.2f}, of", *(f"{a:.2f}" for a in accuracies))
print(f"training: median {statistics.median(seconds):.1f} s, longest {max(seconds):.1f} s, on {runs[0]['world_size']} ranks")
print(f"hardware: {runs[0]['hardware']}; version {runs[0]['version']}")
PY
