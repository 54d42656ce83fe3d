"""`ddpgd scaling`: its flags, and a measurement from beginning to report."""

import math
import shlex
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ddpgd.config.parsing import path
from ddpgd.config.schema import OPTIONS
from ddpgd.errors import DdpgdError, InputError, Interrupted
from ddpgd.scaling.arguments import layouts, numbers, positive, share, some_of
from ddpgd.scaling.cases import MODES, axes
from ddpgd.scaling.measure import Measurement, Settings
from ddpgd.scaling.processes import RunFailed

DESCRIPTION = """\
Measure strong and weak scaling: throughput, efficiency, where a step's time goes, and in words what limits it.

The command starts its ranks itself: on this machine, on the machines of a host file (--hosts), or inside the Slurm
allocation that it runs in. Each case is compared with one rank that does the same work with as many threads. The folder
--out receives index.html (one page with conclusion and plots), strong.png, weak.png, shares.png, results.csv and
results.json. The same command continues a measurement that was interrupted. Arguments after -- are passed to
`ddpgd train`. Exit code: 0 done, 1 a run failed, 2 wrong input, 75 interrupted."""

EXAMPLES = """\
ddpgd scaling --out scaling
  ddpgd scaling --out scaling --ranks 1,2,4,8 --wires float32,float16 --target 0.97
  ddpgd scaling --out scaling --hosts launch/hosts.example --ranks 1,4,8 -- --hidden 512,512"""

WORK_OPTIONS = ()
"""Options of `train` that are flags of `scaling`: it hands on what follows `--`."""

OWN_FLAGS = {"--steps", "--epochs", "--max-time", "--until-accuracy", "--global-batch", "--micro-batch", "--accumulate"}
OWN_FLAGS |= {
    "--tensor",
    "--pipeline",
    "--wire",
    "--sync",
    "--local-steps",
    "--run-dir",
    "--resume",
    "--log-every",
    "--evaluate-every",
    "--seed",
}
"""Flags of `ddpgd train` that a measurement sets itself."""


def add_flags(parser: ArgumentParser) -> None:
    """Adds the flags of `ddpgd scaling`, its description and its examples."""
    parser.description, parser.epilog = DESCRIPTION, f"example:\n  {EXAMPLES}"
    wires = OPTIONS["wire"].metadata["choices"]
    add = parser.add_argument
    add("--out", metavar="FOLDER", type=path, required=True, help="folder for all results; made if it is not there")
    add("--ranks", metavar="N,N", type=numbers, default=[1, 2], help="numbers of ranks (default: 1,2)")
    add("--modes", metavar="NAMES", type=some_of(tuple(MODES)), default=list(MODES),
        help=f"of {', '.join(f'{name} ({text})' for name, text in MODES.items())} (default: all)")  # fmt: skip
    add("--wires", metavar="NAMES", type=some_of(wires), default=["float32"],
        help=f"of {', '.join(wires)} (default: float32)")  # fmt: skip
    add("--accumulate", metavar="N,N", type=numbers, default=[1], help="micro-batches per rank (default: 1)")
    add("--local-steps", metavar="N,N", type=numbers, default=[1], help="steps between two exchanges (default: 1)")
    add("--layouts", metavar="TxP,TxP", type=layouts, default=["1x1"],
        help="tensor x pipeline parallel ranks, as in 1x1,2x1,1x2; T > 1 wants -- --shards S (default: 1x1)")  # fmt: skip
    add("--micro-batch", metavar="N", type=positive(int), default=128, help="samples (default: 128)")
    add("--repetitions", metavar="N", type=positive(int), default=5, help="runs of each case (default: 5)")
    add("--seconds", metavar="S", type=positive(float), default=3.0, help="measured part of each run (default: 3)")
    add("--target", metavar="SHARE", type=share, help="also measure the time to this test accuracy, as in 0.97")
    add("--samples", metavar="N", type=positive(int), default=60_000, help="samples in an epoch (default: 60000)")
    add("--hosts", metavar="FILE", type=path, help="host file, as launch/hosts.example; all machines must see --out")
    add("flags", metavar="-- FLAGS", nargs="*", help="flags of ddpgd train, as in -- --hidden 512,512")


def run(parsed: Mapping[str, Any], arguments: list[str]) -> None:
    """Measures what is missing, writes the report and prints its conclusion.

    Args:
        parsed: Values of the flags; a flag that was not given and has no default is missing.
        arguments: The command line after `ddpgd`, for the report.

    Raises:
        InputError: wrong input.
        Interrupted: a signal ended the measurement; what was measured is kept and reported.
        DdpgdError: a run failed.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    values: dict[str, Any] = {field.name: parsed.get(field.name) for field in fields(Settings)}
    hosts = Path(parsed["hosts"]) if "hosts" in parsed else None
    asked = Settings(**values | {"hosts": hosts})
    rival = OWN_FLAGS & {flag.partition("=")[0] for flag in asked.flags}
    if rival:
        raise InputError(f"{min(rival)} after --: ddpgd scaling sets it; `ddpgd scaling --help` lists its own flags")
    if not any(count % math.prod(axes(word)) == 0 for count in asked.ranks for word in asked.layouts):
        raise InputError(
            "--layouts: none of them divides a number of --ranks; type for example --ranks 1,2 --layouts 2x1"
        )
    if asked.hosts and not asked.hosts.is_file():
        raise InputError(f"--hosts: {asked.hosts} is not there; name a file as launch/hosts.example")
    measurement = Measurement(Path(parsed["out"]), asked, shlex.join(["ddpgd", *arguments]))
    try:
        measurement.run()
    except InputError:
        measurement.discard()
        raise
    except RunFailed as failure:
        *before, last = str(failure).splitlines()
        print("\n".join(before), file=sys.stderr)
        raise DdpgdError(last) from None
    except KeyboardInterrupt:
        raise Interrupted("scaling: interrupted; the same command continues") from None
    finally:
        for line in measurement.report():
            print(line, flush=True)
