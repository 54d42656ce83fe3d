"""The memory of a run's records that diagnoses need, and that goes on with the run in its checkpoints."""

from dataclasses import asdict, dataclass, field
from typing import Any

from ddpgd.training.counters import Record


@dataclass
class Memory:
    """Memory of a run's records so far; it goes on with the run, in its checkpoints.

    Attributes:
        told: Names and sentences.
        is_explained: Whether one of them explains all that may follow.
        num_records: Number of records.
        first_loss: Training loss of the first one; None: it is not known.
        largest_update: Largest ratio of an update's norm to that of a layer's params.
        largest_shares: Largest gradient norm of each layer, over that of the last layer, and of how many records.
        step, skipped_updates: Of the last record.
    """

    told: dict[str, str] = field(default_factory=dict)
    is_explained: bool = False
    num_records: int = 0
    first_loss: float | None = None
    largest_update: float = 0.0
    largest_shares: list[float] = field(default_factory=list)
    num_shares: int = 0
    step: int = 0
    skipped_updates: int = 0

    def add(self, record: Record) -> None:
        """Takes a record into account."""
        self.first_loss = self.first_loss if self.num_records else record["train_loss_mean"]
        self.num_records += 1
        self.largest_update = max([self.largest_update, *filter(None, record.get("layer_update_ratios", ()))])
        norms = record.get("layer_grad_norms", [None])
        if None not in norms and norms[-1]:
            shares = [norm / norms[-1] for norm in norms]
            self.largest_shares = [max(pair) for pair in zip(self.largest_shares or shares, shares, strict=True)]
            self.num_shares += 1
        self.step, self.skipped_updates = record["step"], record["skipped_updates"]


UNKNOWN = asdict(Memory(num_records=1))
"""The memory of a run whose first records are not known: that of a checkpoint of an earlier version."""


def is_memory(value: Any) -> bool:
    """Returns whether a value, read from a checkpoint, is what `asdict` gives of a memory."""
    if not isinstance(value, dict) or value.keys() != UNKNOWN.keys():
        return False
    numbers = [value["first_loss"] or 0.0, value["largest_update"]]
    parts = [
        (dict, [value["told"]]),
        (bool, [value["is_explained"]]),
        (int, [value[name] for name in ("num_records", "num_shares", "step", "skipped_updates")]),
        (list, [value["largest_shares"]]),
    ]
    if not all(type(one) is kind for kind, ones in parts for one in ones):
        return False
    texts = [*value["told"].keys(), *value["told"].values()]
    return all(type(text) is str for text in texts) and all(
        type(number) in (int, float) for number in (*numbers, *value["largest_shares"])
    )
