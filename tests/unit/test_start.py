"""Signals to `ddpgd train` from the first moment on."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from ddpgd.cli import main as cli
from ddpgd.cli import start
from ddpgd.training.stopping import StopRequest

SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    start.came.clear()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_comes_early_stops_the_run(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopRequest()

    def run() -> int:
        signal.raise_signal(number)
        with stop.listening(start.came):
            assert stop
        return 75

    monkeypatch.setattr(cli, "main", run)
    monkeypatch.setattr(sys, "argv", ["ddpgd", "train"])
    assert start.main() == 75
    assert stop.reason == f"{signal.Signals(number).name} came"


def test_a_second_ctrl_c_interrupts_also_before_the_run_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> int:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return 0

    monkeypatch.setattr(cli, "main", run)
    monkeypatch.setattr(sys, "argv", ["ddpgd", "train"])
    with pytest.raises(KeyboardInterrupt):
        start.main()


def test_other_commands_keep_their_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[object] = []
    monkeypatch.setattr(cli, "main", lambda: handlers.extend(map(signal.getsignal, SIGNALS)) or 0)
    monkeypatch.setattr(sys, "argv", ["ddpgd", "data"])
    before = [signal.getsignal(number) for number in SIGNALS]
    assert start.main() == 0
    assert handlers == before


def test_what_nohup_ignores_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopRequest()
    with stop.listening():
        signal.raise_signal(signal.SIGHUP)
        assert not stop
    monkeypatch.setattr(cli, "main", lambda: signal.raise_signal(signal.SIGHUP) or 0)
    monkeypatch.setattr(sys, "argv", ["ddpgd", "train"])
    assert start.main() == 0
    assert start.came == []


def test_nothing_large_is_imported_before_signals_are_noted() -> None:
    """Importing NumPy alone takes most of the start."""
    script = "import sys, ddpgd.cli.start; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_run_in_a_thread_leaves_signals_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[object] = []

    def listen() -> None:
        with StopRequest().listening():
            seen.extend(map(signal.getsignal, SIGNALS))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == before


def test_the_library_offers_its_names_without_being_imported_first() -> None:
    script = (
        "import ddpgd, sys; ddpgd.Config; ddpgd.exchange; sys.exit('train' not in dir(ddpgd) or hasattr(ddpgd, 'x'))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
