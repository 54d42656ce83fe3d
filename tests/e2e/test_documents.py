"""What the documents show is run: README's commands in their order, the examples, every command's help."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DDPGD, MPIRUN, PYTHON, ROOT, run_ddpgd, under_mpirun

BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
COMMANDS = {"train", "evaluate", "predict", "data", "compare", "doctor", "plot", "plan"}


def readme_commands() -> list[str]:
    """The lines of README's bash blocks that call ddpgd; the two scripts at its top are tested on their own."""
    lines = [line for block in BLOCK.findall((ROOT / "README.md").read_text()) for line in block.splitlines()]
    return [line for line in lines if not line.startswith("./")]


def spelled_out(line: str) -> list[str]:
    words = shlex.split(line)
    if words[0] == "mpirun":
        words[:1] = MPIRUN
    at = words.index("ddpgd")
    return [*words[:at], *DDPGD, *words[at + 1 :]]


@pytest.mark.usefixtures("mnist")
def test_readme_commands_run_in_their_order(tmp_path: Path) -> None:
    commands = readme_commands()
    assert len(commands) >= 7
    said = {}
    for line in commands:
        done = subprocess.run(spelled_out(line), cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        said[line] = done.stdout
    assert "equal params, bit for bit" in said["ddpgd compare runs/one runs/two"]


def test_readme_names_only_flags_that_exist() -> None:
    helps = [run_ddpgd(0, command, "--help", cwd=ROOT).stdout for command in ("train", "doctor", "plot", "plan")]
    known = set(re.findall(r"--[a-z-]+", "".join(helps)))
    known |= {"--oversubscribe", "--help", "--mca", "--hosts", "--rate"}  # of mpirun and scripts/netlab.py
    for document in ("README.md", "CONTRIBUTING.md", "DECISIONS.md"):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / document).read_text()))
        assert named <= known, document


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_own_loop(num_ranks: int) -> None:
    command = under_mpirun(num_ranks, [*PYTHON, str(ROOT / "examples" / "own_loop.py")])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    alone = subprocess.run(command[-2:], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == alone.returncode == 0, done.stderr
    assert f"{num_ranks} rank" in done.stdout
    assert done.stdout.partition(":")[2] == alone.stdout.partition(":")[2]


def test_train_from_python(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "train_from_python.py")
    said = []
    for num_ranks in (1, 2):
        command = under_mpirun(num_ranks, [*PYTHON, script])
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        said += re.findall(r"params (\w{16})", done.stdout)
    assert len(said) == 3
    assert len(set(said)) == 1


def test_every_configuration_is_accepted_and_so_is_a_run_s_own(tmp_path: Path) -> None:
    files = sorted((ROOT / "configs").glob("*.toml"))
    assert files
    for file in [*files, tmp_path / files[0].stem / "config.toml"]:
        folder = tmp_path / (file.stem if file.parent.name == "configs" else "again")
        arguments = ("--config", file, "--data", "synthetic", "--steps", "5", "--quiet", "--run-dir", folder)
        done = run_ddpgd(0, "train", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_shows_an_example(command: str, tmp_path: Path) -> None:
    for num_ranks in (0, 2):
        done = run_ddpgd(num_ranks, command, "--help", cwd=tmp_path)
        assert done.returncode == 0
        assert done.stdout.count("usage: ") == 1
        assert f"ddpgd {command}" in done.stdout.partition("example:")[2]


def test_help_lists_the_commands(tmp_path: Path) -> None:
    said = run_ddpgd(0, "--help", cwd=tmp_path).stdout
    assert set(re.findall(r"^ {4}(\w+) ", said, re.MULTILINE)) == COMMANDS


@pytest.mark.parametrize("module", ["mpi4py", "cupy"])
def test_import_needs_neither_mpi_nor_cupy(module: str) -> None:
    program = f"import sys; sys.modules['{module}'] = None; import ddpgd.cli; sys.exit(ddpgd.cli.main(['--version']))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMI"))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
