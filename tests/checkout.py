"""A copy of the launchers in a folder of its own, with stand-ins for Python, pip, MPI and the system's programs."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from patience import slowness

ROOT = Path(__file__).parents[1]

PYTHON = """#!/usr/bin/env bash
# Logs how it is called; makes environments with a Python like this one.
echo "python $*" >>"$LOG"
case "$*" in
    "-I -") echo "$0" ;;
    --version) echo "Python 3.12.0" ;;
    "-I -m venv "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && cp "$STAND_INS/mpirun" "$4/bin/mpirun" ;;
    "-I -m pip "*)
        echo "pip ${PIP_USER-} ${PIP_TARGET-} ${PIP_PREFIX-} ${FORCE_COLOR-} ${PYTHONPATH-} ${PYTHONHOME-}" >>"$LOG"
        exit "${PIP_CODE-0}"
        ;;
    "-P -m ddpgd.run.newest "*)
        echo "ddpgd: said by newest" >&2
        exit "${NEWEST_CODE-1}"
        ;;
esac
"""
MPIRUN = """#!/usr/bin/env bash
[[ -n ${HOME:-} ]] || exit 1
[[ $1 != --version ]] || { echo "mpirun (Open MPI) ${MPI_VERSION-5.0.11}"; exit; }
echo "mpirun $*" >>"$LOG"
echo "btl ${OMPI_MCA_btl-} terminal ${DDPGD_TERMINAL-}" >>"$LOG"
echo "size 2"
"""


@dataclass
class Checkout:
    """`log`: how the stand-ins were called. `more`: variables for the scripts that `run` runs."""

    folder: Path
    stand_ins: Path
    more: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path) -> "Checkout":
        made = cls(folder / "checkout", folder / "bin")
        made.folder.mkdir()
        made.stand_ins.mkdir()
        for name in ("launch", "scripts"):
            shutil.copytree(ROOT / name, made.folder / name)
        (made.folder / "pyproject.toml").write_text("[project]\n")
        for name in ("python3", "mpirun", "nvidia-smi"):
            made.stand_in(name, {"python3": PYTHON, "mpirun": MPIRUN}.get(name, "#!/bin/sh\nexit 1\n"))
        return made

    def stand_in(self, name: str, text: str) -> Path:
        path = self.stand_ins / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.stand_ins}:/usr/local/bin:/usr/bin:/bin"
        own = {"PATH": path, "LOG": str(self.stand_ins / "log"), "STAND_INS": str(self.stand_ins)}
        return {"HOME": str(self.stand_ins), "TMPDIR": os.environ.get("TMPDIR", "/tmp")} | own | self.more

    def run(self, script: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a bash script in the checkout, or in another folder."""
        command = ["bash", "-c", script]
        where = {"cwd": folder or self.folder, "env": self.environment}
        return subprocess.run(command, **where, capture_output=True, text=True, timeout=60 * slowness(), check=False)  # type: ignore[call-overload, no-any-return]

    def start(self, script: str, **streams: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["bash", "-c", script], cwd=self.folder, env=self.environment, **streams)

    def setup(self, kind: str = "run") -> subprocess.CompletedProcess[str]:
        """Sets up; prints the environment."""
        return self.run(f'source scripts/setup.sh; setup {kind}; echo "$VENV"')

    def log(self) -> list[str]:
        """Returns the stand-ins' lines since the last call."""
        path = self.stand_ins / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines
