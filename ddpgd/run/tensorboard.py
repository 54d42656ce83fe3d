"""Records as event files of TensorBoard, beside metrics.jsonl."""

from importlib.util import find_spec
from pathlib import Path

from ddpgd.errors import InputError
from ddpgd.training.counters import Record

NO_FIGURES = ("step", "time")


def check() -> None:
    """Raises InputError if tensorboardX is not installed."""
    if find_spec("tensorboardX") is None:
        raise InputError("--tensorboard needs tensorboardX; type pip install 'ddpgd[tensorboard]', or drop the flag")


class EventFile:
    """Event files in RUN/tensorboard, with every number of a record by its name, those of layers by NAME/LAYER, at its step."""

    def __init__(self, folder: Path, step: int) -> None:
        """Opens it for steps after `step`; TensorBoard drops later ones that an interrupted run has left."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def record(self, record: Record) -> None:
        for name, value in record.items():
            listed = {f"{name}/{number}": one for number, one in enumerate(value, 1)} if isinstance(value, list) else {}
            for tag, figure in (listed or {name: value}).items():
                if isinstance(figure, int | float) and name not in NO_FIGURES:
                    self._writer.add_scalar(tag, figure, record["step"], walltime=record["time"])

    def close(self) -> None:
        self._writer.close()
