"""Predicted steps beside measured ones: networks, wires, accumulation, links between two hosts.

Computing is fitted for each network in shared memory, and each link on the middle one, by `ddpgd plan --measure`
in float32 without accumulation; everything else is predicted. Links are those of a lab (tools/netlab/main.py, root).

    python -m benchmarks.cost_model.run --out benchmarks/cost_model/scaling-model.json      all, in about 15 minutes
    python -m benchmarks.cost_model.run --links shm --networks 784-128-10        without root
"""

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.cost_model.records import Case, Fit, Found
from benchmarks.lib.arguments import new_file
from benchmarks.lib.common import NUM_RANKS, SHARED_MEMORY, typed
from benchmarks.lib.program import Program, make_parser, show
from benchmarks.lib.results import spread, write
from ddpgd.comm.cluster import Cluster, Link
from ddpgd.run.records import read_records
from ddpgd.scaling.arguments import positive, some_of
from ddpgd.scaling.conditions import MPI_PACKAGES, measured_by, versions_text
from ddpgd.scaling.cost_model import Coding, Costs, Prediction, Work, predict
from ddpgd.scaling.processes import ONE_THREAD, RunFailed, run_for
from tools.netlab.main import Lab

PROGRAM = Program("bench_model")
say = PROGRAM.say

Key = tuple[str, str, str, int]
"""Link, network, wire, micro-batches per rank."""
LINKS = (SHARED_MEMORY, "1gbit", "100mbit")
NETWORKS = {"784-128-10": 128, "784-512-512-10": 128, "784-2500-2000-1500-1000-500-10": 64}
"""Rows of a micro-batch."""
NAMES = {SHARED_MEMORY: "In shared memory", "1gbit": "Over 1 Gbit/s", "100mbit": "Over 100 Mbit/s"}
LINKS_FITTED_ON = "784-512-512-10"
WIRES = ("float32", "float16")
ACCUMULATE = (1, 4)
FIT_S = 8.0
PATIENCE_S = 600.0
TOGETHER_S = 4.0
LEAST_STEPS, MOST_STEPS = 8, 400


class Runner:
    """Starts programs on two ranks, over shared memory or on the hosts of a lab."""

    def __init__(self, lab: Lab | None) -> None:
        self._lab = lab

    def __call__(self, link: str, words: list[str]) -> str:
        """Returns what the program printed. RunFailed: it failed."""
        command = [sys.executable, "-m", "ddpgd", *words]
        try:
            if link == SHARED_MEMORY or self._lab is None:
                done = run_for(["mpirun", "-n", str(NUM_RANKS), *command], PATIENCE_S)
            else:
                self._lab.set_rate(link)
                done = self._lab.mpirun(command, env=ONE_THREAD, timeout=PATIENCE_S, capture=True)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"{link}, {' '.join(words)}: ended after {PATIENCE_S:g} s") from None
        if done.returncode:
            raise RunFailed(f"{(done.stderr or done.stdout).strip()[-800:]}\n{link}: exit code {done.returncode}")
        return done.stdout


def bench(asked: argparse.Namespace, arguments: list[str]) -> Found:
    """Fits, then measures cases, whose repetitions take turns."""
    found: Found = {
        **measured_by(typed("benchmarks.cost_model.run", arguments), MPI_PACKAGES),
        "fits": [],
        "cases": [],
        "repetitions": asked.repetitions,
    }
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(hosts=NUM_RANKS)) if asked.links != [SHARED_MEMORY] else None
        run = Runner(lab)
        wanted = [(SHARED_MEMORY, network) for network in asked.networks]
        wanted += [(link, LINKS_FITTED_ON) for link in asked.links if link != SHARED_MEMORY]
        for link, network in wanted:
            say(f"fit: {link}, {network}")
            words = ["plan", "--measure", "--seconds", f"{FIT_S:g}", "--ranks", "2", "--json", *work_flags(network, 1)]
            fit = json.loads(run(link, words))["fit"]
            found["fits"].append(
                {
                    "over": link,
                    "network": network,
                    "num_params": fit["num_params"],
                    "costs": fit["costs"],
                    "codings": fit["codings"],
                    "link": fit["link"],
                }
            )
        keys = list(itertools.product(asked.links, asked.networks, WIRES, ACCUMULATE))
        times: dict[Key, list[float]] = {key: [] for key in keys}
        for number in range(asked.repetitions):
            for key in keys:
                say(f"{number + 1}: {', '.join(map(str, key))}")
                times[key].append(measured(key, predicted(key, found["fits"]).step_s, run))
    found["cases"] = [_case(key, predicted(key, found["fits"]), taken) for key, taken in times.items()]
    return found


def _case(key: Key, prediction: Prediction, taken: list[float]) -> Case:
    link, network, wire, accumulate = key
    return {
        "link": link,
        "network": network,
        "wire": wire,
        "accumulate": accumulate,
        "predicted_s": prediction._asdict(),
        "step_s": spread(taken),
    }


def work_flags(network: str, accumulate: int) -> list[str]:
    hidden = ",".join(network.split("-")[1:-1])
    words = f"--hidden {hidden} --micro-batch {NETWORKS[network]} --accumulate {accumulate} --backend numpy"
    return words.split()


def predicted(key: Key, fits: list[Fit]) -> Prediction:
    """Predicts a step of the case: costs of its network's fit, and the link of its link's."""
    link_name, network, wire, accumulate = key
    own = next(one for one in fits if (one["over"], one["network"]) == (SHARED_MEMORY, network))
    over = own if link_name == SHARED_MEMORY else next(one for one in fits if one["over"] == link_name)
    coding = Coding(*own["codings"].get(wire, (0.0, 0.0)))
    costs = Costs(**own["costs"] | {"coding": coding})
    link = Link(**over["link"])
    rows = NETWORKS[network]
    work = Work(own["num_params"], NUM_RANKS * rows * accumulate, rows, wire)
    return predict(work, costs, Cluster(1, link, link), NUM_RANKS)


def measured(key: Key, predicted_s: float, run: Runner) -> float:
    """Returns seconds a step in the second half of a short run."""
    link, network, wire, accumulate = key
    steps = round(min(MOST_STEPS, max(LEAST_STEPS, TOGETHER_S / predicted_s))) // 2 * 2
    with tempfile.TemporaryDirectory(prefix="ddpgd-bench-") as scratch:
        folder = Path(scratch) / "run"
        words = ["train", *work_flags(network, accumulate), "--wire", wire, "--lr", "0.01"]
        words += f"--steps {steps} --log-every {steps // 2} --evaluate-every 1000000 --quiet --run-dir {folder}".split()
        run(link, words)
        *_, first, last = read_records(folder)
    return float((last["train_s"] - first["train_s"]) / (last["step"] - first["step"]))


def is_fitted(case: Case) -> bool:
    """Tells whether the case's own measurement went into the model."""
    plain = (case["wire"], case["accumulate"]) == ("float32", 1)
    return plain and (case["link"] == SHARED_MEMORY or case["network"] == LINKS_FITTED_ON)


def page_lines(found: Found) -> list[str]:
    """Returns conditions, errors of the cases that no fit saw, and all cases."""
    errors = [abs(error(case)) for case in found["cases"] if not is_fitted(case)]
    lines = [
        f"- command: `{found['command']}`, {found['time']}; commit: {found['commit']}; load of the machine before: "
        f"{found['load_before']:.1f}",
        f"- hardware: {found['hardware']}; {found['num_cores']} cores; {versions_text(found)}",
        f"- {found['repetitions']} repetitions, cases in turn; medians (min to max); {NUM_RANKS} ranks, one a host, one BLAS "
        "thread each",
        "",
        f"**{len(errors)} cases that no fit saw: median error {100 * statistics.median(errors):.1f} %, largest "
        f"{100 * max(errors):.1f} %.**",
    ]
    for link in dict.fromkeys(case["link"] for case in found["cases"]):
        lines += ["", f"{NAMES[link]}:", "", *_table([case for case in found["cases"] if case["link"] == link])]
    return lines


def _table(cases: list[Case]) -> list[str]:
    lines = [
        "| network | wire | accumulate | measured, ms | predicted | error, % | compute | wait | exchange |",
        "|---" * 9 + "|",
    ]
    for case in cases:
        one, times = case["predicted_s"], case["step_s"]
        exchange_s = one["latency_s"] + one["transfer_s"] + one["coding_s"]
        lines.append(
            f"| {case['network']} | {case['wire']} | {case['accumulate']} "
            f"| {_short(1000 * times['median'])} ({_short(1000 * times['min'])} to {_short(1000 * times['max'])}) "
            f"| {_short(1000 * one['step_s'])} | {100 * error(case):+.1f}{' (fitted)' if is_fitted(case) else ''} "
            f"| {_short(1000 * one['compute_s'])} | {_short(1000 * one['wait_s'])} | {_short(1000 * exchange_s)} |"
        )
    return lines


def _short(number: float) -> str:
    """Returns three digits, never as a power of ten."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def error(case: Case) -> float:
    """Returns the error of the prediction over the measured median."""
    return case["predicted_s"]["step_s"] / case["step_s"]["median"] - 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--out", metavar="FILE", type=new_file, help="JSON: median, least and most of each case")
    add("--page", metavar="FILE", type=Path, help="puts the table into this page")
    add(
        "--networks",
        metavar="NAMES",
        type=some_of(tuple(NETWORKS)),
        default=list(NETWORKS),
        help=f"of {', '.join(NETWORKS)}",
    )
    add("--links", metavar="NAMES", type=some_of(LINKS), default=list(LINKS), help=f"of {', '.join(LINKS)}")
    add("--repetitions", metavar="N", type=positive(int), default=3, help="default: 3")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Returns an exit code: 0 done, 1 a run failed, 2 wrong usage, or a machine without what it takes."""

    def work() -> bool:
        asked = parse(arguments)
        found = bench(asked, arguments)
        if asked.out:
            write(asked.out, found)
        show(page_lines(found), asked.page, "scaling model")
        return True

    return PROGRAM.run(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
