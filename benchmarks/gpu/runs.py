"""The processes of the contestants, and one case measured: all of them in turn, again and again."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from benchmarks.gpu.cases import Case, contestants
from benchmarks.lib.results import ratios, spread

ROOT = Path(__file__).resolve().parents[2]
ANSWER_S = 60.0


class Lost(Exception):
    """A contestant, or its whole process, gave no figure; the message says why."""


class Process:
    """A worker of one library: started when first asked, and again after it was lost."""

    def __init__(self, library: str, python: str, samples: Path) -> None:
        self._command = [python, "-m", "benchmarks.gpu.worker", library, str(samples)]
        self._running: subprocess.Popen[str] | None = None

    def ask(self, do: str, within_s: float = ANSWER_S, **arguments: Any) -> Any:
        """Returns the answer to one request. Lost: there is none."""
        self.tell(do, **arguments)
        return self.answer(within_s)

    def tell(self, do: str, **arguments: Any) -> None:
        """Sends a request; a process that has ended gives no answer."""
        running = self._running or self._start()
        with suppress(BrokenPipeError):
            print(json.dumps({"do": do, **arguments}), file=running.stdin, flush=True)

    def answer(self, within_s: float) -> Any:
        """Returns the answer to the oldest request. Lost: an error, the end of the process, or nothing in time."""
        if self._running is None:
            raise Lost("its process ended")
        try:
            line = self._lines.get(timeout=within_s)
        except queue.Empty:
            self.stop()
            raise Lost(f"no answer within {within_s:.0f} s") from None
        if not line:
            code = self._running.wait()
            self.stop()
            raise Lost(f"its process ended with code {code}")
        answer = json.loads(line)
        if "error" in answer:
            raise Lost(answer["error"])
        return answer["value"]

    def stop(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            with suppress(BrokenPipeError):
                if self._running.stdin is not None:
                    self._running.stdin.close()
            self._running = None

    def _start(self) -> subprocess.Popen[str]:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._running = running = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_forward, args=(running.stdout, self._lines), daemon=True).start()
        return running


def processes(libraries: list[str], pythons: dict[str, str], samples: Path) -> dict[str, Process]:
    return {library: Process(library, pythons.get(library, sys.executable), samples) for library in libraries}


def measure(case: Case, workers: dict[str, Process], repetitions: int, make_s: float) -> dict[str, Any]:
    """Every contestant's time of a step in each repetition, or why there is none; made within `make_s` seconds."""
    found, library_of = _made(case, workers, make_s)

    def ask(key: str, do: str, **arguments: Any) -> Any:
        """The answer; None and a reason in its row where there is none."""
        try:
            return workers[library_of[key]].ask(do, key=key, **arguments)
        except Lost as lost:
            found[key]["error"] = str(lost)
            return None

    def alive() -> list[str]:
        return [key for key, row in found.items() if "error" not in row]

    for key in alive():
        found[key]["steps"] = ask(key, "warm_up")
    us: dict[str, list[float]] = {key: [] for key in alive()}
    for number in range(repetitions):
        keys = alive()
        turn = number % max(1, len(keys))
        for key in keys[turn:] + keys[:turn]:
            if taken_s := ask(key, "seconds", steps=found[key]["steps"]):
                us[key].append(1e6 * taken_s / found[key]["steps"])
    for key in alive():
        found[key] |= {"last_loss": ask(key, "loss"), "us": spread(us[key])}
    for key in alive() if "captured" in alive() else ():
        found[key]["times_captured"] = ratios(us[key], us["captured"])
    for library, own in contestants(case).items():
        if library in workers:
            _clear(workers[library], failed=any("error" in found[key] for key in own))
    return {**asdict(case), "name": str(case), "contestants": found}


def _clear(worker: Process, failed: bool) -> None:
    """Makes room for the next case; after a failure in a new process, since CUDA may be of no use in the old one."""
    if failed:
        worker.stop()
    else:
        with suppress(Lost):
            worker.ask("forget")


def _made(case: Case, workers: dict[str, Process], make_s: float) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """All contestants, made side by side, since that takes much longer than a measurement."""
    found: dict[str, dict[str, Any]] = {}
    taking_part = {library: keys for library, keys in contestants(case).items() if library in workers}
    for library, keys in taking_part.items():
        for key in keys:
            workers[library].tell("make", key=key, case=asdict(case))
    started = time.monotonic()
    for library, keys in taking_part.items():
        for key in keys:
            try:
                left_s = max(1.0, make_s - (time.monotonic() - started))
                found[key] = {"first_loss": workers[library].answer(left_s)}
            except Lost as lost:
                found[key] = {"error": str(lost)}
    return found, {key: library for library, keys in taking_part.items() for key in keys}


def _forward(source: IO[str], lines: "queue.SimpleQueue[str]") -> None:
    """Line after line; an empty one at the end."""
    with source:
        for line in source:
            lines.put(line)
    lines.put("")
