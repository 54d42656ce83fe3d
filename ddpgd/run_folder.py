"""A run's folder: config.toml, metrics.jsonl, summary.json, checkpoints/. One run each; nothing is overwritten."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import tomli_w

from ddpgd.config import Config, to_table
from ddpgd.errors import InputError
from ddpgd.files import write_atomically

_OURS = ("config.toml", "metrics.jsonl", "summary.json", "checkpoints")


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
        came_from = resumed.parent.parent if resumed else None
        path = Path(config.run_dir).expanduser() if config.run_dir else came_from or _fresh()
        try:
            continues = came_from is not None and path.exists() and path.samefile(came_from)
            if not continues and any((path / name).exists() for name in _OURS):
                raise InputError(
                    f"--run-dir {path}: holds a run already; name another folder, or go on with --run-dir {path} --resume"
                )
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            (path / "summary.json").unlink(missing_ok=True)
            write_atomically(path / "config.toml", tomli_w.dumps(to_table(config)).encode())
        except OSError as error:
            raise InputError(f"--run-dir {path}: cannot write there: {error.strerror or error}") from None
        return cls(path)


def _fresh() -> Path:
    """runs/DATE-TIME, with a number behind it where that is taken."""
    stem = datetime.now().strftime("%Y%m%d-%H%M%S")
    number, path = 1, Path("runs") / stem
    while path.exists():
        number += 1
        path = Path("runs") / f"{stem}-{number}"
    return path
