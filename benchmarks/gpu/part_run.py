"""One part of the check: its process, what its tests told, and the sources that it was run with."""

import hashlib
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("ddpgd", "tests/gpu", "benchmarks/gpu")


def run_for(command: list[str], log: Path, seconds: float) -> int | None:
    """Runs a command in the repository, its output here and in `log`; None: it was ended after so many seconds."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with (
        log.open("w", encoding="utf-8") as copy,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as running,
    ):
        late = threading.Event()

        def end() -> None:
            late.set()
            os.killpg(running.pid, signal.SIGKILL)

        timer = threading.Timer(max(0.1, seconds), end)
        timer.start()
        try:
            assert running.stdout is not None
            for line in running.stdout:
                print(line, end="", flush=True)
                copy.write(line)
            code = running.wait()
        finally:
            timer.cancel()
            if running.poll() is None:
                end()
    return None if late.is_set() else code


def counts(path: Path) -> dict[str, Any] | None:
    """Returns numbers of tests, first lines of failures, reasons of skips, and figures; None without pytest's file."""
    try:
        suite = next(ElementTree.parse(path).iter("testsuite"))
    except (OSError, ElementTree.ParseError, StopIteration):
        return None
    failures: dict[str, str] = {}
    skips: dict[str, int] = {}
    figures = {str(found.get("name")): found.get("value") for found in suite.iter("property")}
    for case in suite.iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        for node in case:
            message = " ".join((node.get("message") or "").split())[:300]
            if node.tag in ("failure", "error"):
                failures[name] = message
            elif node.tag == "skipped":
                skips[message] = skips.get(message, 0) + 1
    number = int(suite.get("tests", "0"))
    passed = number - len(failures) - sum(skips.values())
    return {"passed": passed, "failed": len(failures), "failures": failures, "skipped": skips, "figures": figures}


def verdict_of(code: int | None, tests: dict[str, Any] | None) -> str:
    """Returns the end of a part in a line."""
    word = "passed" if code == 0 else "FAILED (no end)" if code is None else f"FAILED (exit code {code})"
    if tests is None:
        return word
    told = f"{word}, {tests['passed']} tests passed, {tests['failed']} failed"
    figures = (f"{name}: {value}" for name, value in tests["figures"].items())
    skips = (f"{number} skipped: {reason}" for reason, number in tests["skipped"].items())
    return "; ".join([told, *figures, *skips])


def sources(trial: bool) -> str:
    """Returns a hash of all that is checked, and of the GPUs: with others, or after a trial, every part is run again."""
    digest = hashlib.sha256(f"{gpus()} {trial}".encode())
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".cu", ".cuh"):
                digest.update(f"{path.relative_to(ROOT)}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def gpus() -> str:
    """Returns the driver's list of GPUs; empty without a driver."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def commit() -> str:
    """Returns the commit, or "unknown" in a copy without Git."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
