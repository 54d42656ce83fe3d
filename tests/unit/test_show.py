"""Output for people: whole lines where there is no terminal, lines above a bar where there is one."""

import errno
import io

import pytest
from rich.console import Console

from ddpgd.comm.launcher import Launch
from ddpgd.run import starting
from ddpgd.run.progress import Bar, Guarded, Lines, Quiet, describe
from ddpgd.run.stderr import say
from ddpgd.training.counters import Counters

RECORD = {
    "step": 705,
    "epoch": 3,
    "train_loss_mean": 0.01,
    "epoch_train_loss_mean": 0.06129,
    "test_loss_mean": 0.0702,
    "test_accuracy": 0.9785,
    "samples_per_s": 310_000.4,
}
LINE = "epoch  3/10  step  705/2350  train loss 0.0613  test loss 0.0702  test accuracy 97.85 %  310,000 samples/s"


def console(terminal: bool, width: int = 60) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=width, legacy_windows=False), out


def test_an_evaluation_in_a_line() -> None:
    assert describe(RECORD, 2350, 10) == LINE


def test_an_epoch_without_an_update_has_no_loss() -> None:
    assert "train loss -  test" in describe(RECORD | {"epoch_train_loss_mean": None}, 2350, 10)


def test_lines_are_whole_whatever_the_width_and_say_what_was_said() -> None:
    target, out = console(terminal=False)
    with Lines(target, 2350, 10) as shown:
        shown.say("[bold]run folder[/bold]: runs/1 :smile:")
        shown.step(Counters(step=1, epoch_samples=1))
        shown.record({"step": 700, "train_loss_mean": 1.0})
        shown.record(RECORD)
    assert out.getvalue() == f"[bold]run folder[/bold]: runs/1 :smile:\n{LINE}\n"


def test_quiet_has_the_same_methods_and_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Quiet() as shown:
        shown.say("hello")
        shown.step(Counters())
        shown.record(RECORD)
    assert capsys.readouterr() == ("", "")


def test_the_bar_tells_step_loss_and_share() -> None:
    target, out = console(terminal=True, width=100)
    with Bar(target, total_steps=200, num_epochs=2, steps_done=0) as shown:
        shown.say("going")
        shown.step(Counters(step=50, epoch_loss_sum=1.0, epoch_samples=4))
        shown.record(RECORD | {"step": 50, "epoch": 1})
    text = out.getvalue()
    assert "going" in text
    assert "step 50/200" in text
    assert "25%" in text
    assert "loss 0.2500" in text
    assert "test accuracy 97.85 %" in text


def test_the_bar_starts_where_a_resumed_run_stands() -> None:
    target, out = console(terminal=True, width=100)
    with Bar(target, total_steps=200, num_epochs=2, steps_done=150):
        pass
    assert "step 150/200" in out.getvalue()


def test_the_bar_is_not_redrawn_at_every_step() -> None:
    target, out = console(terminal=True, width=100)
    with Bar(target, total_steps=100_000, num_epochs=1, steps_done=0) as shown:
        for step in range(1, 2000):
            shown.step(Counters(step=step, epoch_loss_sum=1.0, epoch_samples=1))
    assert 1 <= out.getvalue().count("loss 1.0000") < 1000


def test_a_first_step_without_an_update_shows_no_loss() -> None:
    target, _ = console(terminal=True)
    with Bar(target, total_steps=10, num_epochs=1, steps_done=0) as shown:
        shown.step(Counters(step=1))


class Failing(io.StringIO):
    """An output that takes some writes, then fails as a dead terminal, a full disk or a closed pipe does."""

    def __init__(self, failure: Exception, writes: int) -> None:
        super().__init__()
        self.failure = failure
        self.left = writes

    def write(self, text: str) -> int:
        if not self.left:
            raise self.failure
        self.left -= 1
        return super().write(text)


@pytest.mark.parametrize("writes", [0, 1, 2, 5])
@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.EIO, "dead"),
        BrokenPipeError(),
        OSError(errno.ENOSPC, "full"),
        UnicodeEncodeError("ascii", "é", 0, 1, "no"),
        ValueError("I/O operation on closed file"),
        AttributeError("'NoneType' object has no attribute 'write'"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("bar", [True, False])
def test_no_failure_of_a_display_reaches_the_run(
    failure: Exception, writes: int, bar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exit_as_rich_does(_: Console) -> None:  # without its pointing this process's standard output elsewhere
        raise SystemExit(1)

    monkeypatch.setattr(Console, "on_broken_pipe", exit_as_rich_does)
    target = Console(file=Failing(failure, writes), force_terminal=bar, width=80, legacy_windows=False)
    with Guarded(Bar(target, 10, 1, 0) if bar else Lines(target, 10, 1)) as shown:
        for step in range(1, 11):
            shown.say(f"line {step} é")
            shown.step(Counters(step=step, epoch_loss_sum=1.0, epoch_samples=1))
            shown.record(RECORD)


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """FORCE_COLOR, which many CI services set, must not fill logs with bars and escape sequences."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"):
        monkeypatch.setenv(name, "1")
    found = starting._console(Launch("", 0, 1, 0))
    found.print("[bold]1")
    assert not found.is_terminal
    assert "\x1b" not in capsys.readouterr().out


def test_there_may_be_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    starting._console(Launch("", 0, 1, 0)).print("nobody reads it")
    say("nobody reads it")
