"""Display of a run on rank 0: a progress bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ddpgd.training.counters import Counters, Record

_REFRESH_S = 0.1


class Quiet:
    """Displays nothing."""

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
    """Prints a line for each evaluation, and messages."""

    def __init__(self, console: Console, total_steps: int, num_epochs: int) -> None:
        self._console = console
        self._total_steps = total_steps
        self._num_epochs = num_epochs

    def record(self, record: Record) -> None:
        if evaluated_kind(record):
            self.say(describe(record, self._total_steps, self._num_epochs))

    def say(self, line: str) -> None:
        encoding = self._console.encoding
        text = line.encode(encoding, "backslashreplace").decode(encoding)
        self._console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


class Bar(Lines):
    """Prints lines above a bar, which the training loop redraws at most ten times a second: no thread is needed."""

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


class Guarded(Quiet):
    """Passes everything on to another display until that fails, then displays nothing: no display may end a run."""

    def __init__(self, shown: Quiet) -> None:
        self._shown = shown

    def __enter__(self) -> Self:
        self._try(lambda: self._shown.__enter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._try(lambda: self._shown.__exit__())

    def step(self, counters: Counters) -> None:
        self._try(lambda: self._shown.step(counters))

    def record(self, record: Record) -> None:
        self._try(lambda: self._shown.record(record))

    def say(self, line: str) -> None:
        self._try(lambda: self._shown.say(line))

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except (Exception, SystemExit):  # noqa: BLE001 - dead terminals, full disks, encodings; rich exits at a closed pipe
            self._shown = Quiet()


def evaluated_kind(record: Record) -> str:
    """Returns on which samples there was an evaluation, "validation" or "test"; empty: there was none."""
    return next((kind for kind in ("validation", "test") if f"{kind}_accuracy" in record), "")


def describe(record: Record, total_steps: int, num_epochs: int) -> str:
    """Returns a line on an evaluation; its train loss is the mean over the epoch so far, as in the summary."""
    kind = evaluated_kind(record)
    return (
        f"epoch {record['epoch']:>{len(str(num_epochs))}}/{num_epochs}"
        f"  step {record['step']:>{len(str(total_steps))}}/{total_steps}"
        f"  train loss {decimals(record['epoch_train_loss_mean'])}"
        f"  {kind} loss {decimals(record[f'{kind}_loss_mean'])}"
        f"  {kind} accuracy {100 * record[f'{kind}_accuracy']:.2f} %"
        f"  {record['samples_per_s']:,.0f} samples/s"
    )


def decimals(loss: float | None) -> str:
    """Returns a loss with four decimals, in scientific notation from a million on; a dash for None."""
    return "-" if loss is None else f"{loss:.4f}" if abs(loss) < 1e6 else f"{loss:.2e}"
