"""What a person sees of a run on rank 0: a progress bar on a terminal, plain lines elsewhere."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ddpgd.training.counters import Counters, Record

_REFRESH_S = 0.1


class Quiet:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self, counters: Counters) -> None:
        pass

    def record(self, record: Record) -> None:
        pass

    def say(self, line: str) -> None:
        pass


class Lines(Quiet):
    """A line an evaluation, and what is said."""

    def __init__(self, console: Console, total_steps: int, num_epochs: int) -> None:
        self._console = console
        self._total_steps = total_steps
        self._num_epochs = num_epochs

    def record(self, record: Record) -> None:
        if "test_accuracy" in record:
            self.say(describe(record, self._total_steps, self._num_epochs))

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)


class Bar(Lines):
    """The lines above a bar, which is redrawn at most ten times a second, from the loop itself: no thread beside it."""

    def __init__(self, console: Console, total_steps: int, num_epochs: int, steps_done: int) -> None:
        super().__init__(console, total_steps, num_epochs)
        self._progress = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task("train", total=total_steps, completed=steps_done, loss="-")
        self._shown = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, counters: Counters) -> None:
        now = time.monotonic()
        if now - self._shown > _REFRESH_S and counters.epoch_samples:
            self._shown = now
            self._progress.update(self._task, completed=counters.step, loss=f"{counters.train_loss_mean:.4f}")
            self._progress.refresh()


def describe(record: Record, total_steps: int, num_epochs: int) -> str:
    """ "epoch 3/10  step 705/2350  train loss 0.0613  test loss 0.0702  test accuracy 97.85 %  310,000 samples/s"."""
    return (
        f"epoch {record['epoch']:>{len(str(num_epochs))}}/{num_epochs}"
        f"  step {record['step']:>{len(str(total_steps))}}/{total_steps}"
        f"  train loss {decimals(record['train_loss_mean'])}"
        f"  test loss {decimals(record['test_loss_mean'])}"
        f"  test accuracy {100 * record['test_accuracy']:.2f} %"
        f"  {record['samples_per_s']:,.0f} samples/s"
    )


def decimals(loss: float | None) -> str:
    """Four decimals, or a dash where there is no finite value."""
    return "-" if loss is None else f"{loss:.4f}"
