"""Observers of a run on its ranks: rank 0's writes and shows records, others' only take part in them."""

from collections.abc import Callable

from ddpgd.run.diagnosis import Diagnoses
from ddpgd.run.progress import Quiet
from ddpgd.run.records import RecordFile
from ddpgd.run.tensorboard import EventFile
from ddpgd.training.counters import Record


class Recorder:
    """Rank 0's observer: what is recorded gets the params' hashes, goes to the files, and is shown, as are diagnoses of it."""

    def __init__(
        self, files: list[RecordFile | EventFile], shown: Quiet, hashes: Callable[[], Record], diagnoses: Diagnoses
    ) -> None:
        self.step = shown.step
        self.say = shown.say
        self._files = files
        self._shown = shown
        self._hashes = hashes
        self._diagnoses = diagnoses

    def record(self, record: Record) -> None:
        whole = record | self._hashes()
        for file in self._files:
            file.record(whole)
        self._shown.record(record)
        for sentence in self._diagnoses.see(record):
            self._shown.say(f"WARNING: {sentence}")


class Giver(Quiet):
    """The observer of other ranks, which take part when rank 0 collects the params for a record."""

    def __init__(self, give_params: Callable[[], object]) -> None:
        self._give_params = give_params

    def record(self, record: Record) -> None:  # noqa: ARG002
        self._give_params()
