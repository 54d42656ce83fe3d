"""A run of two ranks, as it looks in a terminal: docs/run.svg.

python -m tools.screenshot docs/run.svg
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ddpgd.data import download

COMMAND = "mpirun -n 2 ddpgd train --hidden 512,512 --epochs 4 --run-dir runs/first"
WIDTH = 118
WEB_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def picture(lines: list[str]) -> str:
    """The lines under the command, as SVG, which asks no server for fonts."""
    console = Console(record=True, width=WIDTH, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    console.print(Text(f"$ {COMMAND}", style="bold"))
    for line in lines:
        console.print(Text(line))
    return WEB_FONT.sub("", console.export_svg(title="ddpgd"))


def main(arguments: list[str]) -> int:
    """0 done, 1 the run failed, 2 wrong usage."""
    if len(arguments) != 1:
        print("screenshot: type the file, as in: python -m tools.screenshot docs/run.svg", file=sys.stderr)
        return 2
    words = COMMAND.split()
    place = download.locate(None, os.environ)
    if place.directory is None:
        print("screenshot: DDPGD_DATA names synthetic data; name a folder with MNIST", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mnist").symlink_to(place.directory)
        command, variables = [*words[:3], sys.executable, "-m", *words[3:]], os.environ | {"DDPGD_DATA": "mnist"}
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return 1
    Path(arguments[0]).write_text(picture(done.stdout.splitlines()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
