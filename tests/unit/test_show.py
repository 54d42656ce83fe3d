"""What a person sees: whole lines where there is no terminal, lines above a bar where there is one."""

import io

import pytest
from rich.console import Console

from ddpgd.run.progress import Bar, Lines, Quiet, describe
from ddpgd.training.counters import Counters

RECORD = {
    "step": 705,
    "epoch": 3,
    "train_loss_mean": 0.06129,
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
    assert "train loss -  test" in describe(RECORD | {"train_loss_mean": None}, 2350, 10)


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
