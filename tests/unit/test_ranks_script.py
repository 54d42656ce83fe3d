"""launch/ranks.sh with stand-ins for mpirun and Python: signals, lost standard error, pauses, and the run of RUN."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from checkout import Checkout

HEAR = """#!/usr/bin/env bash
# Says that it has begun; ends with 75 at USR1, DROP of which it drops before.
heard=0
trap '((heard++ < ${DROP-0})) || { echo stopped >>"$LOG"; exit 75; }' USR1
trap 'echo terminated >>"$LOG"; exit 143' TERM
trap 'echo paused >>"$LOG"' TSTP
trap 'echo continued >>"$LOG"' CONT
echo "began $*" >>"$LOG"
for ((i = 0; i < 3000; i++)); do sleep 0.02; done
"""
RUN_RANKS = """
MPIRUN=(mpirun) MPIRUN_LIVE=() MPIRUN_TOLERANT=(--with-ft ulfm) PYTHON=python3
source scripts/setup.sh
source launch/ranks.sh
run_ranks 2 --lr 0.1
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout.make(tmp_path)
    made.stand_in("mpirun", HEAR)
    return made


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits as long as it takes; a test that hangs is ended by the suite's limit."""
    while not condition():
        time.sleep(0.01)


def said(checkout: Checkout, word: str) -> bool:
    log = checkout.stand_ins / "log"
    return log.exists() and word in log.read_text()


def begin(checkout: Checkout, script: str = RUN_RANKS, **streams: int) -> "subprocess.Popen[bytes]":
    process = checkout.start(script, **streams)
    wait_for(lambda: said(checkout, "began"))
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_each_signal_asks_for_a_checkpoint(checkout: Checkout, number: signal.Signals) -> None:
    process = begin(checkout, stderr=subprocess.PIPE)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == 75
    assert b"stopping at the next step, with a checkpoint" in stderr
    assert said(checkout, "stopped")


@pytest.mark.parametrize("stream", ["2>/dev/full", "2> >(exec true)", "2>&-"])
def test_a_lost_standard_error_keeps_no_signal_from_the_ranks(checkout: Checkout, stream: str) -> None:
    """A full disk; a reader that Ctrl-C has ended, as in `2>&1 | tee log`; a closed terminal."""
    process = begin(checkout, f"exec {stream}\nsleep 0.1\n{RUN_RANKS}")
    process.terminate()
    assert process.wait() == 75
    assert said(checkout, "stopped")


def test_a_second_signal_ends_the_ranks_at_once(checkout: Checkout) -> None:
    checkout.more["DROP"] = "1000"
    process = begin(checkout, stderr=subprocess.PIPE)
    process.terminate()
    assert process.stderr
    assert b"with a checkpoint" in process.stderr.readline()
    process.terminate()
    _, stderr = process.communicate()
    assert process.returncode == 143
    assert b"stopping at once, without a checkpoint" in stderr
    assert b"mpirun ended with code 143 (SIGTERM)" in stderr


def test_a_request_that_mpirun_drops_is_made_again(checkout: Checkout) -> None:
    """It does so with one that comes before it has started the ranks."""
    checkout.more["DROP"] = "1"
    process = begin(checkout)
    process.terminate()
    assert process.wait() == 75


def test_a_signal_before_the_ranks_have_begun_is_a_stop_too(checkout: Checkout) -> None:
    """They do not yet hear USR1, which then kills them: nothing is lost, and a scheduler starts the job again."""
    checkout.stand_in("mpirun", '#!/bin/sh\necho began >>"$LOG"\nexec sleep 60\n')
    process = begin(checkout, stderr=subprocess.PIPE)
    process.send_signal(signal.SIGUSR1)
    _, stderr = process.communicate()
    assert process.returncode == 75
    assert b"the ranks had not begun" in stderr


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR1"])
def test_a_signal_during_the_set_up_starts_no_ranks(checkout: Checkout, name: str) -> None:
    done = checkout.run(RUN_RANKS.replace("run_ranks", f"kill -{name} $$; run_ranks"))
    assert done.returncode == 75
    assert done.stderr == f"bash: SIG{name} came before the ranks had begun: nothing is lost, start again\n"
    assert not said(checkout, "began")


def test_an_end_by_a_signal_that_nobody_asked_for_is_said(checkout: Checkout) -> None:
    checkout.stand_in("mpirun", "#!/bin/sh\nkill -9 $$\n")
    done = checkout.run(RUN_RANKS)
    assert done.returncode == 137
    assert "mpirun ended with code 137 (SIGKILL)" in done.stderr


def test_ctrl_z_pauses_the_ranks_and_fg_goes_on(checkout: Checkout) -> None:
    process = begin(checkout)
    process.send_signal(signal.SIGTSTP)
    wait_for(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    wait_for(lambda: said(checkout, "paused"))
    os.kill(process.pid, signal.SIGCONT)
    wait_for(lambda: said(checkout, "continued"))
    process.terminate()
    assert process.wait() == 75


@pytest.mark.parametrize(
    ("code", "own"),
    [(0, "--run-dir={run} --resume "), (1, "--run-dir={run} "), (3, "--run-dir={run} ")],
)
@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_the_program_says_with_what_a_run_goes_on(checkout: Checkout, code: int, own: str, slashes: str) -> None:
    """`latest` is not looked at: it may be missing, dangle, or name a checkpoint that is cut."""
    checkout.stand_in("mpirun", '#!/bin/sh\necho "began $*" >>"$LOG"\n')
    run = checkout.folder / "runs" / "a run"
    (run / "checkpoints").mkdir(parents=True)
    (run.parent / "a run.lost-1").mkdir()
    checkout.more |= {"RUN": f"{run}{slashes}", "NEWEST_CODE": str(code)}
    done = checkout.run(RUN_RANKS)
    assert done.returncode == 0, done.stderr
    log = checkout.log()
    assert f"python -P -m ddpgd.run.newest {run}" in log
    assert f"began -n 2 python3 -P -m ddpgd train {own.format(run=run)}--lr 0.1" in log
    assert sorted(path.name for path in run.parent.iterdir()) == (
        ["a run", "a run.lost-1"] if code != 3 else ["a run.lost-1", "a run.lost-2"]
    )
    assert not list((run.parent / "a run.lost-1").iterdir())


def test_a_run_that_cannot_be_looked_at_starts_nothing(checkout: Checkout) -> None:
    checkout.more |= {"RUN": "runs/first", "NEWEST_CODE": "2"}
    done = checkout.run(RUN_RANKS)
    assert (done.returncode, done.stderr) == (2, "bash: RUN=runs/first: said by newest\n")
    assert not said(checkout, "began")


def test_home_is_meant_by_a_tilde(checkout: Checkout) -> None:
    checkout.stand_in("mpirun", "#!/bin/sh\n")
    checkout.more["RUN"] = "~/first"
    assert checkout.run(RUN_RANKS).returncode == 0
    assert f"python -P -m ddpgd.run.newest {checkout.stand_ins}/first" in checkout.log()


def test_a_terminal_elsewhere_is_not_the_ranks_terminal(checkout: Checkout) -> None:
    """As that of the shell in which a job was submitted."""
    checkout.stand_in("mpirun", '#!/bin/sh\necho "terminal ${DDPGD_TERMINAL-none}" >>"$LOG"\n')
    checkout.more["DDPGD_TERMINAL"] = "80"
    assert checkout.run(RUN_RANKS).returncode == 0
    assert "terminal none" in checkout.log()


def test_ranks_that_may_die_are_started_so(checkout: Checkout) -> None:
    checkout.stand_in("mpirun", '#!/bin/sh\necho "began $*" >>"$LOG"\n')
    assert checkout.run(RUN_RANKS.replace("--lr 0.1", "--elastic")).returncode == 0
    assert "began --with-ft ulfm -n 2 python3 -P -m ddpgd train --elastic" in checkout.log()


@pytest.mark.parametrize(("code", "num_starts"), [(0, 1), (1, 3), (2, 1), (3, 1), (4, 3), (5, 3), (75, 1), (137, 3)])
def test_a_run_that_failed_is_started_again(checkout: Checkout, code: int, num_starts: int) -> None:
    checkout.stand_in("mpirun", f'#!/bin/sh\necho "began $*" >>"$LOG"\nexit {code}\n')
    checkout.more |= {"RUN": "runs/first", "RESTARTS": "2", "NEWEST_CODE": "0"}
    done = checkout.run(RUN_RANKS)
    assert done.returncode == code
    starts = [line for line in checkout.log() if line.startswith("began")]
    assert starts == ["began -n 2 python3 -P -m ddpgd train --run-dir=runs/first --resume --lr 0.1"] * num_starts
    assert done.stderr.count("is started again") == num_starts - 1


def test_a_stop_is_no_failure(checkout: Checkout) -> None:
    checkout.more |= {"RUN": "runs/first", "RESTARTS": "2", "NEWEST_CODE": "1", "DROP": "1000"}
    process = begin(checkout, stderr=subprocess.PIPE)
    process.terminate()
    assert process.stderr
    assert b"with a checkpoint" in process.stderr.readline()
    process.terminate()
    _, stderr = process.communicate()
    assert process.returncode == 143
    assert b"is started again" not in stderr


@pytest.mark.parametrize(
    ("restarts", "said"),
    [("2", "type RUN=runs/first as well"), ("-1", "a whole number from 1"), ("x", "a whole number")],
)
def test_starts_without_a_run_or_number_are_refused(checkout: Checkout, restarts: str, said: str) -> None:
    checkout.more["RESTARTS"] = restarts
    done = checkout.run(RUN_RANKS)
    assert done.returncode == 2
    assert said in done.stderr
