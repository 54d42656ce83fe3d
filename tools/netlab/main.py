"""Several hosts on one Linux machine: runs MPI programs over real TCP links that are slow on purpose, or cut."""

import argparse
import math
import re
import signal
import sys
from types import FrameType
from typing import NoReturn

from tools.netlab.cleanup import ENDING
from tools.netlab.hosts import LabError
from tools.netlab.lab import OUT_OF_PATIENCE, Cut, Lab, find_mpirun

__all__ = ["Cut", "Lab", "LabError"]

ABOUT = """
Several hosts on one Linux machine, to measure and test MPI programs over real TCP links that are slow on purpose, or
cut. Each host is a network namespace with its own name, addresses and shared memory, and one link to a switch. COMMAND
runs under mpirun (Open MPI 5) across them. Needs root, ip and tc. Nothing is left behind; the next lab removes the
remains of one that was killed.

  python -m tools.netlab --hosts 2 --rate 100mbit -- python -m ddpgd train --epochs 1 --run-dir runs/slow
  python -m tools.netlab --hosts 2 --rate 1gbit --each -- python measure_gloo.py
  python -m tools.netlab --hosts 3 --cut 5:3 -- python program.py
"""
LIMITS = f"""
Exit code: that of COMMAND (128 + N when signal N ended it); 2 wrong input, or a machine that cannot hold a lab;
{OUT_OF_PATIENCE} ended by --patience. More options of Open MPI go through its environment.

The lab sets OMPI_MCA_btl_tcp_eager_limit and OMPI_MCA_btl_tcp_rndv_eager_limit to 32 MiB unless you set them: with Open
MPI's 64 KiB, ranks that send to each other reach about half of a slow link's rate. It also sets
PRTE_MCA_oob_tcp_keepalive_time, _intvl and _probes to 20, 5 and 4: a host that is silent for 40 s ends the run.

From Python, in the folder of the checkout:

  from tools.netlab.main import Lab
  with Lab(hosts=2, rate="100mbit") as lab:
      done = lab.mpirun(["python", "program.py"], capture=True)   # a CompletedProcess
      lab.set_rate("10mbit")
      lab.each(["python", "measure_gloo.py"])

Limits of such a lab:
  - network cards: no RDMA, no offloads, no interrupts; TCP costs as much CPU time as on a loopback, less than
    through a card's driver, and sender and receiver share the same cores
  - latency, unless the kernel has netem: without --latency a packet arrives in about 10 us, plus its time on the link
  - growth of compute: all hosts share this machine's cores, caches and memory bandwidth, so compute slows as hosts are
    added; with more ranks than cores, measured times are mostly the scheduler's
  - a busy switch: each link is limited, the switch between them is not
A command that ends at once, such as true, can make Open MPI itself hang under mpirun; one of 0.3 s does not.
The rate counts Ethernet frames without preamble and gap: of 100 Mbit/s a TCP stream gets at most 95.6.
"""


class OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LabError(message.removeprefix("argument "))


def whole(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return float(text)


def parse_cut(text: str) -> Cut:
    after, colon, lasting = text.partition(":")
    try:
        if not colon:
            raise argparse.ArgumentTypeError("no colon")
        return Cut(seconds(after), math.inf if lasting == "forever" else seconds(lasting))
    except argparse.ArgumentTypeError:
        wanted = "seconds after the start, a colon, seconds or forever, as in 5:3"
        raise argparse.ArgumentTypeError(f"{text!r} is not a cut: {wanted}") from None


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = OneLineParser(
        prog="tools.netlab", description=ABOUT, epilog=LIMITS, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="tools.netlab [options] -- COMMAND ...", allow_abbrev=False,
    )  # fmt: skip
    add = parser.add_argument
    add("--hosts", type=whole, default=2, metavar="N", help="how many, 1 to 99 (default: 2)")
    add("--rate", default="none", help="of each link, each way: 10mbit, 1gbit, 500kbit; none: unlimited (default)")
    add("--latency", help="one way, between any two hosts: 1ms, 200us; needs a kernel with netem")
    add("--ranks-per-host", type=whole, default=1, metavar="N", help="(default: 1)")
    add("--cut", type=parse_cut, metavar="AFTER:FOR", help="seconds: the last host's link goes down; 5:3, 5:forever")
    add("--patience", type=seconds, default=60.0, metavar="S", help="a run cut for ever is ended after S (default: 60)")
    add("--each", action="store_true", help="no mpirun: COMMAND once on each host, with RANK, WORLD_SIZE, MASTER_ADDR, "
        "MASTER_PORT and GLOO_SOCKET_IFNAME set; the first failure ends all")  # fmt: skip
    add("--first", action="store_true", help="no mpirun: COMMAND once, on the first host; an mpirun in it reaches all hosts "
        "by their names, host0, host1, ...")  # fmt: skip
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="and its arguments")
    given = parser.parse_args(arguments)
    given.command = given.command[given.command[:1] == ["--"] :]
    if not given.command:
        parser.error("no command: type one after --, e.g. tools.netlab --hosts 2 --rate 100mbit -- python program.py")
    if (given.each or given.first) and given.ranks_per_host > 1:
        parser.error("--ranks-per-host is for mpirun: leave it out with --each and --first")
    if given.each and given.first:
        parser.error("--each is on all hosts, --first on one: type one of them")
    return given


def run(given: argparse.Namespace) -> int:
    lab = Lab(given.hosts, given.rate, given.latency, given.ranks_per_host)
    if not (given.each or given.first):
        find_mpirun()
    cut = given.cut and Cut(given.cut.after_s, given.cut.for_s, given.patience)
    with lab:
        if given.each:
            return lab.each(given.command, cut=cut).returncode
        if given.first:
            return lab.first(given.command, cut=cut).returncode
        return lab.mpirun(given.command, cut=cut).returncode


def leave(number: int, _: FrameType | None) -> NoReturn:
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    print(f"netlab: ended by {signal.Signals(number).name}", file=sys.stderr, flush=True)
    raise SystemExit(128 + number)


def main(arguments: list[str]) -> int:
    for number in ENDING:
        signal.signal(number, leave)
    try:
        code = run(parse(arguments))
    except LabError as error:
        print(f"netlab: {error}", file=sys.stderr)
        return 2
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
