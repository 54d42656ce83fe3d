"""A scaling measurement in a folder: all runs that are asked for, each kept as soon as it is made, and the report."""

import csv
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ddpgd.errors import InputError
from ddpgd.run.plots import pyplot
from ddpgd.run.stderr import say
from ddpgd.scaling.analysis import rows, table
from ddpgd.scaling.cases import ISOLATED, Case, cases
from ddpgd.scaling.conclusion import conclusion
from ddpgd.scaling.conditions import MPI_PACKAGES, measured_by
from ddpgd.scaling.html import page
from ddpgd.scaling.places import place
from ddpgd.scaling.plots import draw
from ddpgd.scaling.records import Found
from ddpgd.scaling.runs import LOAD_LIMIT, throughput, time_to, trial_steps_s

MOST_TRIES = 3
"""Tries of a run until no other program disturbs it."""

EPOCHS = 20
"""Epochs after which a target counts as not reached."""

_CONDITIONS = ("place", "number of slots", "commit", "hardware", "number of cores", "set of versions", "environment")
"""Conditions that must not change while a measurement continues."""


@dataclass(frozen=True)
class Settings:
    """The flags of `ddpgd scaling`; `flags` are passed on to `ddpgd train`."""

    ranks: list[int]
    modes: list[str]
    wires: list[str]
    accumulate: list[int]
    local_steps: list[int]
    layouts: list[str]
    micro_batch: int
    repetitions: int
    seconds: float
    target: float | None
    samples: int
    hosts: Path | None
    flags: list[str]


class Measurement:
    """All that is asked, and all that was found so far, in results.json of a folder."""

    def __init__(self, folder: Path, asked: Settings, command: str) -> None:
        """Opens the folder, or continues what is there.

        Raises:
            InputError: the folder holds something else, or plots cannot be drawn.
        """
        pyplot()
        self._folder = folder
        self._file = folder / "results.json"
        self._asked = asked
        self.cases = cases(
            asked.modes, asked.ranks, asked.wires, asked.accumulate, asked.local_steps, asked.micro_batch, asked.layouts
        )
        self.place = place(asked.hosts, folder.resolve())
        self._is_new = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out: {folder} cannot be a folder ({error.strerror}); name another") from None
        self.found: Found = {
            "settings": asdict(asked) | {"hosts": str(asked.hosts) if asked.hosts else None},
            "place": self.place.name,
            "num_slots": self.place.num_slots,
            "facts": measured_by(command, MPI_PACKAGES),
            "steps": {},
            "runs": [],
            "targets": [],
            "finished": False,
        }
        if self._file.exists():
            self._continue()
        elif any(not found.name.startswith("run-") for found in folder.iterdir()):
            raise InputError(f"--out: {folder} holds something else; name another folder")

    def _continue(self) -> None:
        """Takes over what results.json holds. InputError: it is of another measurement, or of none."""
        try:
            before: Found = json.loads(self._file.read_text(encoding="utf-8"))
            old, new = _conditions(before), _conditions(self.found)
            settings = before["settings"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"--out: {self._file} is not of ddpgd scaling; name another folder") from None
        if settings != self.found["settings"]:
            raise InputError(f"--out: {self._folder} holds a measurement with other arguments; name another folder")
        if other := [name for name in _CONDITIONS if old[name] != new[name]]:
            raise InputError(f"--out: {self._folder} holds a measurement with another {other[0]}; name another folder")
        self.found = before
        say(f"scaling: continuing after {len(before['runs'])} runs that {self._folder} already has")

    def run(self) -> None:
        """Makes all runs that are missing, repetition by repetition."""
        for case in self.cases:
            if case.name not in self.found["steps"]:
                say(f"scaling: trial: {case.name}")
                step_s = trial_steps_s(case, self.place, self._asked.flags)
                rounds = max(1, round(self._asked.seconds / step_s / case.local_steps))
                self.found["steps"][case.name] = 2 * rounds * case.local_steps
                self._save()
        for number in range(1, self._asked.repetitions + 1):
            for case in self.cases:
                self._throughput(case, number)
            if self._asked.target:
                for case in self.cases:
                    self._time_to(self._asked.target, case, number)
        self.found["finished"] = True
        self._save()

    def _throughput(self, case: Case, number: int) -> None:
        """Makes a run that counts, in at most MOST_TRIES tries."""
        same = [run for run in self.found["runs"] if (run["case"], run["repetition"]) == (case.name, number)]
        while len(same) < MOST_TRIES and not any(run["other_load"] <= LOAD_LIMIT for run in same):
            say(f"scaling: {number}: {case.name}" + (", again: other programs disturbed it" if same else ""))
            same.append(throughput(case, self.place, self._asked.flags, self.found["steps"][case.name], number))
            self.found["runs"].append(same[-1])
            self._save()

    def _time_to(self, target: float, case: Case, seed: int) -> None:
        done = any((one["case"], one["seed"]) == (case.name, seed) for one in self.found["targets"])
        if case.mode == ISOLATED or done:
            return
        say(f"scaling: {seed}: {case.name} to {100 * target:g} %")
        self.found["targets"].append(
            time_to(target, case, self.place, self._asked.flags, seed, self._asked.samples, EPOCHS)
        )
        self._save()

    def _save(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        new.replace(self._file)

    def discard(self) -> None:
        """Removes a folder that was made, and holds nothing yet."""
        if self._is_new:
            with suppress(OSError):
                self._folder.rmdir()

    def report(self) -> list[str]:
        """Writes CSV, pictures and page of what was measured so far; returns the sentences of the conclusion."""
        made = rows(self.found, self.cases, self.found["num_slots"])
        flat = table(made)
        if not flat:
            return []
        with (self._folder / "results.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, flat[0])
            writer.writeheader()
            writer.writerows(flat)
        sentences = conclusion(made)
        pictures = draw(made, self._folder)
        (self._folder / "index.html").write_text(page(self.found, made, sentences, pictures), encoding="utf-8")
        return sentences


def _conditions(found: Found) -> dict[str, Any]:
    """Returns conditions by name; of the commit, not whether files were changed: results in the checkout would count."""
    facts = found["facts"]
    commit = facts["commit"].split()[0]
    machine = [facts["hardware"], facts["num_cores"], facts["versions"], facts["environment"]]
    return dict(zip(_CONDITIONS, [found["place"], found["num_slots"], commit, *machine], strict=True))
