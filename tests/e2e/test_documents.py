"""Everything that the documents show is run: their commands in their order, the examples, every command's help."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DDPGD, MPIRUN, PYTHON, ROOT, call_ddpgd, call_module, run_ddpgd, under_mpirun
from documents import DOCUMENTS, lines_of

from ddpgd.config.toml_file import read_toml

COMMANDS = {
    "train",
    "evaluate",
    "predict",
    "data",
    "compare",
    "doctor",
    "plot",
    "runs",
    "report",
    "sweep",
    "plan",
    "scaling",
    "profile",
    "descend",
    "gradcheck",
    "hang",
    "bisect",
    "quiz",
    "lr-find",
}
PAGES = (
    "CONTRIBUTING.md",
    "ARCHITECTURE.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "benchmarks").rglob("*.md"))),
)

CLUSTERS = {
    "launch/": "test_cluster.py",
    "python scripts/scaling_efficiency.py": "test_cluster.py",
    "sbatch": "test_slurm.py",
    "salloc": "test_slurm.py",
    "sudo tools/slurm_lab.sh": "test_slurm.py",
    "sudo python -m tools.netlab": "test_netlab.py",
    "kubectl": "test_kubectl.py",
    "docker": None,
}
"""How console lines begin, and the tests that run them; None: they want an image from the internet."""


def commands(document: str) -> list[str]:
    """The lines of its bash blocks; the two scripts at README's top are tested on their own."""
    return [line for line in lines_of("bash", document) if not line.startswith("./")]


def spelled_out(line: str) -> list[str]:
    words = shlex.split(line, comments=True)
    if words[0] == "mpirun":
        words[:1] = MPIRUN
    elif words[0] == "python":
        words[:2] = [*PYTHON, str(ROOT / words[1])]
    elif words[0].startswith("launch/"):
        words[0] = str(ROOT / words[0])
    words = [str(ROOT / word) if word.startswith("configs/") else word for word in words]
    if "ddpgd" in words:
        at = words.index("ddpgd")
        words[at : at + 1] = DDPGD
    return words


@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize(
    "document",
    [
        pytest.param(name, marks=() if name == "README.md" else pytest.mark.deep)
        for name in DOCUMENTS
        if name != "docs/labs.md"  # which test_labs.py runs
    ],
)
def test_commands_run_in_their_order(document: str, tmp_path: Path) -> None:
    said = {}
    for line in commands(document):
        done = subprocess.run(spelled_out(line), cwd=tmp_path, capture_output=True, text=True, check=False)
        code = re.search(r"# exit code (\d+)$", line)
        assert done.returncode == (int(code[1]) if code else 0), f"{line}\n{done.stderr}"
        said[line] = done.stdout
    assert said
    for line, words in said.items():
        if "ddpgd compare" in line:
            assert "equal params, bit for bit" in words, line
    shown = re.findall(r"global batch \d+ = [^`\n]* accumulated", (ROOT / document).read_text(encoding="utf-8"))
    assert [words for words in shown if words not in "".join(said.values())] == []


def test_other_commands_have_tests_that_run_them() -> None:
    for line in (line for document in DOCUMENTS for line in lines_of("console", document)):
        start, file = next((start, file) for start, file in CLUSTERS.items() if line.startswith(start))
        called = (
            re.findall(r"for_clusters\(([^)]*), instead", (ROOT / "tests" / "e2e" / file).read_text()) if file else []
        )
        assert file is None or f'"{start.removeprefix("sudo ")}"' in " ".join(called), line


@pytest.mark.parametrize("document", [*DOCUMENTS, *PAGES])
def test_files_that_are_named_are_there(document: str) -> None:
    text = (ROOT / document).read_text()
    linked = {target for target in re.findall(r"\]\(([^)#]+)\)", text) if not target.startswith("http")}
    assert all((ROOT / document).parent.joinpath(target).exists() for target in linked), linked
    named = set(re.findall(r"`((?:launch|scripts|docs|examples|configs)/[\w-]+\.\w+)[` ]", text))
    assert all((ROOT / name).exists() for name in named), named


def test_documents_name_only_flags_that_exist() -> None:
    helps = [call_ddpgd(command, "--help").stdout for command in sorted(COMMANDS)]
    helps += [call_module(module, "--help").stdout for module in ("tools.netlab.main", "tools.soak")]
    known = set(re.findall(r"--[a-z-]+", "".join(helps)))
    known |= {"--oversubscribe", "--map-by", "--help", "--mca", "--bind-to", "--quiet"}  # of mpirun
    known |= {"--logdir"}  # of TensorBoard
    known |= {"--write"}  # of tools.ptx_report
    known |= {"--nodes", "--ntasks", "--ntasks-per-node", "--gpus-per-node", "--signal", "--wait", "--time"}  # of Slurm
    for document in (*DOCUMENTS, "CONTRIBUTING.md", "DECISIONS.md"):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / document).read_text()))
        assert named <= known, document


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_own_loop(num_ranks: int) -> None:
    command = under_mpirun(num_ranks, [*PYTHON, str(ROOT / "examples" / "own_loop.py")])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    alone = subprocess.run(command[-2:], capture_output=True, text=True, check=False)
    assert done.returncode == alone.returncode == 0, done.stderr
    assert f"{num_ranks} rank" in done.stdout
    assert done.stdout.partition(":")[2] == alone.stdout.partition(":")[2]


def test_train_from_python(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "train_from_python.py")
    said = []
    for num_ranks in (1, 2):
        command = under_mpirun(num_ranks, [*PYTHON, script])
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said += re.findall(r"params (\w{16})", done.stdout)
    assert len(said) == 3
    assert len(set(said)) == 1


def test_every_configuration_is_accepted_and_so_is_a_run_s_own(tmp_path: Path) -> None:
    files = sorted((ROOT / "configs").glob("*.toml"))
    assert files
    for file in [*files, tmp_path / files[0].stem / "config.toml"]:
        folder = tmp_path / (file.stem if file.parent.name == "configs" else "again")
        steps = str(5 + read_toml(str(file)).get("warmup", 0))
        arguments = ("--config", file, "--data", "synthetic", "--steps", steps, "--quiet", "--run-dir", folder)
        done = call_ddpgd("train", *arguments)
        assert done.returncode == 0, done.stderr


def check_help(command: str, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: ") == 1
    assert f"ddpgd {command}" in done.stdout.partition("example:")[2]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_shows_an_example(command: str) -> None:
    check_help(command, call_ddpgd(command, "--help"))


def test_two_ranks_show_help_once(tmp_path: Path) -> None:
    check_help("train", run_ddpgd(2, "train", "--help", cwd=tmp_path))


def test_help_lists_the_commands() -> None:
    said = call_ddpgd("--help").stdout
    assert set(re.findall(r"^ {4}([\w-]+)", said, re.MULTILINE)) == COMMANDS


@pytest.mark.parametrize("module", ["mpi4py", "cupy"])
def test_import_needs_neither_mpi_nor_cupy(module: str) -> None:
    program = (
        f"import sys; sys.modules['{module}'] = None; from ddpgd.cli import main; sys.exit(main.main(['--version']))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMI"))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
