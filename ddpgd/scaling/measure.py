"""Strong and weak scaling of ddpgd, measured: throughput, efficiency, where a step goes, and in words why it is not better.

On a bare machine, on the machines of a host file (--hosts), or inside a Slurm allocation, which it finds by itself. The
baseline is one rank with the same work and as many threads. Into the folder --out: index.html (one page, with conclusion and
pictures), strong.png, weak.png, shares.png, results.csv, results.json. Started again with the same arguments, it goes on where
it was stopped. What stands after -- goes to `ddpgd train`.

    python scripts/scaling_efficiency.py --out scaling
    python scripts/scaling_efficiency.py --out scaling --ranks 1,2,4,8 --wires float32,float16 --target 0.97
    python scripts/scaling_efficiency.py --out scaling --hosts launch/hosts.example --ranks 1,4,8 -- --hidden 512,512
"""

import argparse
import csv
import json
import signal
import sys
from pathlib import Path

from benchmarks.cpu.run import positive
from benchmarks.cpu.runs import BenchError
from benchmarks.exchange.run import OneLine
from benchmarks.slow_links.cases import some_of
from ddpgd.config.schema import OPTIONS
from ddpgd.errors import InputError
from ddpgd.run.plots import pyplot
from ddpgd.scaling.analysis import conclusion, rows, table
from ddpgd.scaling.cases import ISOLATED, MODES, Case, cases
from ddpgd.scaling.conditions import MPI_PACKAGES, measured_by
from ddpgd.scaling.html import page
from ddpgd.scaling.plots import draw
from ddpgd.scaling.runs import LOAD_LIMIT, place, throughput, time_to, trial_steps_s

MOST_TRIES = 3
"""How often a run is made, until nothing disturbs it."""

INTERRUPTED = 75
EPOCHS = 20
"""After which a target that was not reached is not."""

OWN_FLAGS = {"--steps", "--epochs", "--max-time", "--until-accuracy", "--global-batch", "--micro-batch", "--accumulate"}
OWN_FLAGS |= {"--wire", "--sync", "--local-steps", "--run-dir", "--resume", "--log-every", "--evaluate-every", "--seed"}
"""Flags of `ddpgd train` that this script sets itself."""

SAME = ("place", "number of slots", "commit", "hardware", "number of cores", "set of versions", "environment")
"""Conditions that must not change while a measurement is gone on with."""


def _conditions(found: dict) -> dict:
    """By their names; of the commit not whether files were changed after it, which results in the folder would be."""
    facts = found["facts"]
    commit = facts["commit"].split()[0]
    machine = [facts[name] for name in ("hardware", "num_cores", "versions", "environment")]
    return dict(zip(SAME, [found["place"], found["num_slots"], commit, *machine], strict=True))


class Measurement:
    """What is asked, and all that was found so far, in results.json."""

    def __init__(self, asked: argparse.Namespace, arguments: list[str]) -> None:
        """InputError: the folder holds another measurement, or plots cannot be drawn."""
        pyplot()
        self._file = asked.out / "results.json"
        self._asked = asked
        self.cases = cases(
            asked.modes, asked.ranks, asked.wires, asked.accumulate, asked.local_steps, asked.micro_batch
        )
        try:
            asked.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out: {asked.out} cannot be a folder ({error.strerror}); name another") from None
        self.place = place(asked.hosts, asked.out.resolve())
        settings = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(asked).items()
            if name != "out"
        }
        self.found = {
            "settings": settings,
            "place": self.place.name,
            "num_slots": self.place.num_slots,
            "facts": measured_by("scaling_efficiency.py", arguments, MPI_PACKAGES),
            "steps": {},
            "runs": [],
            "targets": [],
            "finished": False,
        }
        if self._file.exists():
            before = self._before()
            if before["settings"] != settings:
                raise InputError(f"--out: {asked.out} holds a measurement with other arguments; name another folder")
            if other := [name for name in SAME if _conditions(before)[name] != _conditions(self.found)[name]]:
                raise InputError(f"--out: {asked.out} holds a measurement with another {other[0]}; name another folder")
            self.found = before
            say(f"going on with {len(before['runs'])} runs that {asked.out} has already")
        elif any(not found.name.startswith("run-") for found in asked.out.iterdir()):
            raise InputError(f"--out: {asked.out} holds something else; name another folder")

    def _before(self) -> dict:
        """InputError: results.json is not one of ours."""
        try:
            before = json.loads(self._file.read_text(encoding="utf-8"))
            _conditions(before)
            return {"settings": before["settings"], **before}
        except (ValueError, KeyError, TypeError):
            raise InputError(f"--out: {self._file} is not of this script; name another folder") from None

    def run(self) -> None:
        """All that is missing, repetition by repetition."""
        for case in self.cases:
            if case.name not in self.found["steps"]:
                say(f"trial: {case.name}")
                step_s = trial_steps_s(case, self.place, self._asked.flags)
                rounds = max(1, round(self._asked.seconds / step_s / case.local_steps))
                self.found["steps"][case.name] = 2 * rounds * case.local_steps
                self.save()
        for number in range(1, self._asked.repetitions + 1):
            for case in self.cases:
                self._throughput(case, number)
            if self._asked.target:
                for case in self.cases:
                    self._time_to_target(case, number)
        self.found["finished"] = True
        self.save()

    def _throughput(self, case: Case, number: int) -> None:
        """A run that counts, or MOST_TRIES of them."""
        same = [run for run in self.found["runs"] if (run["case"], run["repetition"]) == (case.name, number)]
        while len(same) < MOST_TRIES and not any(run["other_load"] <= LOAD_LIMIT for run in same):
            say(f"{number}: {case.name}" + (", again: it was disturbed" if same else ""))
            run = throughput(case, self.place, self._asked.flags, self.found["steps"][case.name])
            same.append(run | {"repetition": number})
            self.found["runs"].append(same[-1])
            self.save()

    def _time_to_target(self, case: Case, seed: int) -> None:
        done = any((one["case"], one["seed"]) == (case.name, seed) for one in self.found["targets"])
        if case.mode == ISOLATED or done:
            return
        say(f"{seed}: {case.name} to {100 * self._asked.target:g} %")
        self.found["targets"].append(
            time_to(self._asked.target, case, self.place, self._asked.flags, seed, self._asked.samples, EPOCHS)
        )
        self.save()

    def save(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        new.replace(self._file)

    def report(self) -> list[str]:
        """Writes CSV, pictures and page; the sentences of the conclusion."""
        made = rows(self.found, self.cases, self.found["num_slots"])
        flat = table(made)
        if not flat:
            return []
        with (self._asked.out / "results.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, flat[0])
            writer.writeheader()
            writer.writerows(flat)
        sentences = conclusion(made)
        pictures = draw(made, self._asked.out)
        (self._asked.out / "index.html").write_text(page(self.found, made, sentences, pictures), encoding="utf-8")
        return sentences


def parse(arguments: list[str]) -> argparse.Namespace:
    """InputError: an argument is none."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    own, flags = arguments[:at], arguments[at + 1 :]
    parser = OneLine(usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--out",
        metavar="FOLDER",
        type=Path,
        required=True,
        help="of everything that is written; made if it is not there",
    )
    add("--ranks", metavar="N,N", type=numbers, default=[1, 2], help="default: 1,2")
    add("--modes", metavar="NAMES", type=some_of(tuple(MODES)), default=list(MODES), help=f"default: {','.join(MODES)}")
    wires = OPTIONS["wire"].metadata["choices"]
    add(
        "--wires",
        metavar="NAMES",
        type=some_of(wires),
        default=["float32"],
        help=f"of {', '.join(wires)}; default: float32",
    )
    add("--accumulate", metavar="N,N", type=numbers, default=[1], help="micro-batches a rank; default: 1")
    add("--local-steps", metavar="N,N", type=numbers, default=[1], help="between two exchanges; default: 1")
    add("--micro-batch", metavar="N", type=positive(int), default=128, help="rows; default: 128")
    add("--repetitions", metavar="N", type=positive(int), default=5, help="default: 5")
    add("--seconds", metavar="S", type=positive(float), default=3.0, help="that each run is measured for; default: 3")
    add("--target", metavar="SHARE", type=share, help="also the time to this test accuracy, as in 0.97")
    add("--samples", metavar="N", type=positive(int), default=60_000, help="in an epoch; default: 60000")
    add(
        "--hosts",
        metavar="FILE",
        type=Path,
        help="as launch/hosts.example; the folder --out must be seen by all machines",
    )
    asked = parser.parse_args(own)
    asked.flags = flags
    rival = OWN_FLAGS & {flag.partition("=")[0] for flag in flags}
    if rival:
        raise InputError(f"{min(rival)} after --: this script sets it; its own flags are in --help")
    if asked.hosts and not asked.hosts.is_file():
        raise InputError(f"--hosts: {asked.hosts} is not there; name a file as launch/hosts.example")
    return asked


def numbers(text: str) -> list[int]:
    """As "1,2,4"."""
    return sorted({positive(int)(word) for word in text.split(",")})


def share(text: str) -> float:
    """Between 0 and 1."""
    number = positive(float)(text)
    if number >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return number


def say(line: str) -> None:
    print(f"scaling_efficiency: {line}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """0 done, 1 a run failed, 2 wrong input, 75 interrupted: what was measured is kept."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        measurement = Measurement(parse(arguments), arguments)
    except (InputError, OSError) as failure:
        say(str(failure))
        return 2
    code = _measure(measurement)
    print("\n".join(measurement.report()))
    return code


def _measure(measurement: Measurement) -> int:
    """The exit code; what was measured until then can be reported."""
    try:
        measurement.run()
    except BenchError as failure:
        say(str(failure))
        return 1
    except (InputError, OSError) as failure:
        say(str(failure))
        return 2
    except KeyboardInterrupt:
        say("interrupted; the same command goes on")
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
