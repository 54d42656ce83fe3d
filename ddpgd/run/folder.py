"""A run's folder: config.toml, metrics.jsonl, summary.json, checkpoints/. One run each; nothing is overwritten."""

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Self

import tomli_w

from ddpgd.config.schema import Config, to_table
from ddpgd.errors import InputError
from ddpgd.run.atomic import write_atomically


@dataclass(frozen=True)
class RunFolder:
    """`path` exists, is writable, and holds the run's config.toml."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @classmethod
    def open(cls, config: Config, resumed: Path | None) -> Self:
        """Makes the folder that --run-dir names (else a new one under runs/; on resume, that of the checkpoint).

        InputError: it cannot be made or written, or holds another run.
        """
        came_from = resumed.parent.parent if resumed and resumed.parent.name == "checkpoints" else None
        named = Path(os.path.expanduser(config.run_dir)) if config.run_dir else came_from
        path = named or Path("runs")
        try:
            path = named or _fresh()
            continues = came_from is not None and path.exists() and path.samefile(came_from)
            if not continues and not is_free(path):
                raise FileExistsError
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            (path / "summary.json").unlink(missing_ok=True)
            write_atomically(path / "config.toml", [tomli_w.dumps(_lasting(config)).encode()])
        except FileExistsError:
            if not path.is_dir():
                raise InputError(f"--run-dir {path}: cannot write there: it is a file") from None
            raise InputError(
                f"--run-dir {path}: holds a run already; name another folder, or go on with --run-dir {path} --resume"
            ) from None
        except OSError as error:
            raise InputError(f"--run-dir {path}: cannot write there: {error.strerror or error}") from None
        return cls(path)


def is_free(path: Path) -> bool:
    """Returns whether a run may start at `path`: nothing is there, or what a start left that failed before its first record.

    Raises:
        InputError: it cannot be looked at, or is a file.
    """
    try:
        if not path.exists():
            return True
        metrics, checkpoints = path / "metrics.jsonl", path / "checkpoints"
        has_checkpoints = checkpoints.exists() and any(checkpoints.glob("*.safetensors"))
        has_records = metrics.exists() and metrics.stat().st_size > 0
        return path.is_dir() and not ((path / "summary.json").exists() or has_records or has_checkpoints)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be looked at: {getattr(error, 'strerror', None) or error}") from None


def _fresh() -> Path:
    """Makes runs/DATE-TIME, with a number behind it where another start has taken that."""
    stem = datetime.now().strftime("%Y%m%d-%H%M%S")
    for name in chain([stem], (f"{stem}-{number}" for number in count(2))):
        path = Path("runs") / name
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("count() ends")


def _lasting(config: Config) -> dict[str, Any]:
    """What config.toml tells: all but where this run lies, so that it can be the --config of another."""
    return {name: value for name, value in to_table(config).items() if name != "run_dir"}
