"""Report of pytest at the end of a run of the laws of ops: the largest errors, and all of them in a file for --op-errors."""

from pathlib import Path
from typing import Any

import pytest

from op_laws import ERRORS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--op-errors", metavar="FILE.md", help="write the largest error of each op, shape and precision")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Sends the errors that a worker of pytest-xdist saw to the process that reports."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["op_errors"] = [[*key, error] for key, error in ERRORS.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for *key, error in getattr(node, "workeroutput", {}).get("op_errors", ()):
        place = tuple(key)
        ERRORS[place] = max(error, ERRORS.get(place, 0.0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not ERRORS:
        return
    precisions = list(dict.fromkeys(precision for _, _, precision in ERRORS))
    ops = list(dict.fromkeys(op for op, _, _ in ERRORS))
    terminalreporter.section("largest errors, relative to the largest element of a result")
    terminalreporter.write_line(f"{'':24}" + "".join(f"{precision:>12}" for precision in precisions))
    for op in ops:
        found = ([error for key, error in ERRORS.items() if key[::2] == (op, name)] for name in precisions)
        cells = (f"{max(errors):.1e}" if errors else "-" for errors in found)
        terminalreporter.write_line(f"{op:24}" + "".join(f"{cell:>12}" for cell in cells))
    if file := config.getoption("--op-errors"):
        Path(file).write_text("\n".join(_table(precisions)) + "\n", encoding="utf-8")


def _table(precisions: list[str]) -> list[str]:
    lines = ["| op | shape of its result | " + " | ".join(precisions) + " |", "|---" * (2 + len(precisions)) + "|"]
    for op, shape in dict.fromkeys((op, shape) for op, shape, _ in ERRORS):
        cells = (ERRORS.get((op, shape, precision)) for precision in precisions)
        shown = " | ".join("-" if error is None else f"{error:.1e}" for error in cells)
        lines.append(f"| {op} | {shape or 'scalar'} | {shown} |")
    return lines
