"""Files that users' commands leave in a checkout disturb neither git nor the checks; scripts parse."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SCRIPTS = sorted(
    path for folder in ("launch", "scripts", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.sh")
)


def outputs() -> set[str]:
    """Returns the folders and files that the documents' commands make."""
    found = {"plot.png"}
    for document in DOCUMENTS:
        found.update(
            re.findall(r"(?:--out[ =]|--run-dir[ =]|RUN=)([a-z][a-z0-9./-]*)", document.read_text(encoding="utf-8"))
        )
    return found


def test_git_ignores_what_the_documents_commands_make(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    made = sorted(outputs() | {".venv", ".venvs/1", "build", "dist", ".venvs/lock"})
    for name in made:
        path = tmp_path / name / ("" if "." in Path(name).name.strip(".") else "file")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    listed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout == "?? .gitignore\n"


def test_no_two_documents_use_the_same_run_folder() -> None:
    """Commands of one work in a folder where those of another were run."""
    found: dict[str, set[str]] = {}
    for document in DOCUMENTS:
        for name in re.findall(r"--(?:out|run-dir)[ =](\w[\w./-]*)", document.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(document.name)
    assert {name: documents for name, documents in found.items() if len(documents) > 1} == {}


def test_git_ignores_none_of_our_folders(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    ours = [path.relative_to(ROOT) for path in (ROOT / "ddpgd").rglob("*.py")]
    command = ["git", "check-ignore", "--no-index", *map(str, ours)]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout == ""


@pytest.mark.skipif(not shutil.which("ruff"), reason="no ruff on PATH")
def test_what_is_first_party_does_not_depend_on_folders_that_happen_to_be_there(tmp_path: Path) -> None:
    """A folder `runs` once made ruff take tests/runs.py for the package's own."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in ("ddpgd", "tests", "benchmarks", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=lambda _, names: [n for n in names if _is_other(n)])
    for name in (
        *(Path(output).parts[0] for output in outputs()),
        *(path.stem for path in (ROOT / "tests").glob("*.py")),
    ):
        (tmp_path / name).mkdir(exist_ok=True)
    done = subprocess.run(
        ["ruff", "check", "--no-cache", "--select", "I"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def _is_other(name: str) -> bool:
    return name == "__pycache__" or ("." in name and not name.endswith(".py"))


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / "launch" / "slurm.sbatch"], ids=lambda path: path.name)
def test_scripts_parse(script: Path) -> None:
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_processes_that_the_package_starts_import_nothing_from_the_working_folder() -> None:
    """A file random.py there would be imported in the place of Python's own. Scripts of the launchers as well."""
    for path in (ROOT / "ddpgd").rglob("*.py"):
        assert not re.search(r'sys\.executable, "-(?![PI]")', path.read_text(encoding="utf-8")), path
    for path in [*(ROOT / "launch").iterdir(), *(ROOT / "scripts").glob("*.sh")]:
        assert not re.search(r'"\$PYTHON" -(m ddpgd|c)\b', path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_files_that_the_maps_name_are_there(page: str) -> None:
    """Paths are relative to the checkout or to the package; `x.py` alone stands in a row of its folder."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+/[\w.]+\.(?:py|cu|cuh|sh))`", text))
    missing = sorted(name for name in named if not any((base / name).is_file() for base in (ROOT, ROOT / "ddpgd")))
    assert len(named) > 10
    assert not missing
    alone = set(re.findall(r"`(\w+\.(?:py|cu|cuh|sh))`", text))
    known = {
        path.name for tree in ("ddpgd", "launch", "scripts", "tools", "tests") for path in (ROOT / tree).rglob("*.*")
    }
    assert not alone - known
