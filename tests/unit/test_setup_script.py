"""scripts/setup.sh with stand-ins: which environment it takes, makes and updates, and what it never touches."""

import shutil
from pathlib import Path

import pytest

from checkout import MPIRUN, Checkout


@pytest.fixture
def made(tmp_path: Path) -> Checkout:
    """A checkout whose first start is over."""
    checkout = Checkout.make(tmp_path)
    done = checkout.setup()
    assert (done.returncode, done.stdout) == (0, f"{checkout.folder}/.venvs/1\n"), done.stderr
    return checkout


def num_made(checkout: Checkout) -> int:
    return sum("-m venv" in line for line in checkout.log())


def second_mpirun(checkout: Checkout) -> str:
    """Another mpirun, first in PATH; returns what PATH was."""
    folder = checkout.stand_ins / "other"
    folder.mkdir(exist_ok=True)
    shutil.copy(checkout.stand_in("mpirun", MPIRUN), folder / "mpirun")
    path = checkout.environment["PATH"]
    checkout.more["PATH"] = f"{folder}:{path}"
    return path


def test_a_second_start_finds_what_the_first_made(made: Checkout) -> None:
    assert num_made(made) == 1
    assert (made.folder / ".venv").resolve() == made.folder / ".venvs" / "1"
    assert made.setup().returncode == 0
    assert made.log() == []


def test_one_checkout_by_two_names_has_one_environment(made: Checkout, tmp_path: Path) -> None:
    made.log()
    (tmp_path / "home").symlink_to(made.folder)
    done = made.run(f'cd {tmp_path}/home; source scripts/setup.sh; setup run; echo "$VENV"')
    assert done.stdout == f"{made.folder}/.venvs/1\n"
    assert made.log() == []


def test_one_mpirun_by_two_names_has_one_environment(made: Checkout, tmp_path: Path) -> None:
    made.log()
    (tmp_path / "alias").symlink_to(made.stand_ins)
    made.more["PATH"] = f"{tmp_path}/alias:{made.environment['PATH']}"
    assert made.setup().returncode == 0
    assert made.log() == []


def test_another_mpirun_gets_an_environment_of_its_own(made: Checkout) -> None:
    (made.folder / ".venvs" / "1" / "in use").touch()
    before = second_mpirun(made)
    assert made.setup().stdout == f"{made.folder}/.venvs/2\n"
    assert (made.folder / ".venv").resolve().name == "2"
    made.more["PATH"] = before
    assert made.setup().stdout == f"{made.folder}/.venvs/1\n"
    assert (made.folder / ".venv").resolve().name == "1"
    assert (made.folder / ".venvs" / "1" / "in use").exists()
    assert num_made(made) == 2


def test_without_an_index_only_the_new_environment_fails(made: Checkout) -> None:
    before = second_mpirun(made)
    made.more["PIP_CODE"] = "1"
    done = made.setup()
    assert done.returncode == 2
    assert "pip could not install the package" in done.stderr
    assert [path.name for path in (made.folder / ".venvs").glob("[0-9]*")] == ["1"]
    made.more["PATH"] = before
    assert made.setup().stdout == f"{made.folder}/.venvs/1\n"


@pytest.mark.parametrize("how", ["changed", "moved", "python gone"])
def test_what_no_longer_fits_is_left_alone(made: Checkout, how: str) -> None:
    """With a changed pyproject.toml the environment is updated; otherwise there is another one, and a job may use the first."""
    made.log()
    if how == "changed":
        (made.folder / "pyproject.toml").write_text("[project]\nname = 'ddpgd'\n")
    if how == "moved":
        made.folder = made.folder.rename(made.folder.with_name("moved"))
    if how == "python gone":
        (made.folder / ".venvs" / "1" / "bin" / "python").unlink()
    done = made.setup()
    number = 1 if how == "changed" else 2
    assert done.stdout == f"{made.folder}/.venvs/{number}\n", done.stderr
    assert num_made(made) == number - 1
    assert (made.folder / ".venvs" / "1" / "setup.stamp").exists()
    assert (made.folder / ".venv").resolve().name == str(number)


def test_an_update_that_fails_leaves_a_finished_environment(made: Checkout) -> None:
    before = (made.folder / "pyproject.toml").read_text()
    (made.folder / "pyproject.toml").write_text("[project]\nname = 'ddpgd'\n")
    made.more["PIP_CODE"] = "1"
    assert made.setup().returncode == 2
    (made.folder / "pyproject.toml").write_text(before)
    assert made.setup().returncode == 0


def test_the_tools_of_tests_are_added_to_what_is_there(made: Checkout) -> None:
    made.log()
    assert made.setup("test").stdout == f"{made.folder}/.venvs/1\n"
    assert any("[mpi,plots,test]" in line for line in made.log())
    assert made.setup("run").returncode == made.setup("test").returncode == 0
    assert not any("pip" in line for line in made.log())


def test_somebody_elses_environment_is_left_alone(tmp_path: Path) -> None:
    checkout = Checkout.make(tmp_path)
    theirs = checkout.folder / ".venv" / "bin"
    theirs.mkdir(parents=True)
    checkout.stand_in("python", "#!/bin/sh\n").rename(theirs / "python")
    done = checkout.setup()
    assert done.stdout == f"{checkout.folder}/.venvs/1\n"
    assert f"source {checkout.folder}/.venvs/1/bin/activate" in done.stderr
    assert [path.name for path in theirs.iterdir()] == ["python"]


@pytest.mark.parametrize("program", ["mkdir", "rm", "mv", "ln", "flock"])
def test_a_finished_checkout_is_used_without_writing(made: Checkout, program: str) -> None:
    """It may be read-only, or somebody else's."""
    checked = made.folder / ".venvs" / "1" / "setup.checked"
    checked.unlink()
    checked.mkdir()
    made.stand_in(program, '#!/bin/sh\necho "wrote" >>"$LOG"\nexit 1\n')
    done = made.setup()
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote" not in made.log()


def test_a_checkout_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    checkout = Checkout.make(tmp_path)
    (checkout.folder / ".venvs").touch()
    (checkout.folder / ".venvs").chmod(0o444)
    checkout.stand_in("mkdir", "#!/bin/sh\nexit 1\n")
    done = checkout.run("source scripts/setup.sh; ENVIRONMENTS=/proc/no; setup run")
    assert done.returncode == 2
    assert "cannot write /proc/no" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("code", [65, 1, None])
def test_file_systems_without_locks(tmp_path: Path, code: int | None) -> None:
    """65: flock's code for ENOSYS, as on Lustre; 1: another start has it, and then ends; None: there is no flock."""
    checkout = Checkout.make(tmp_path)
    half = checkout.folder / ".venvs" / "1"
    half.mkdir(parents=True)
    if code is None:
        for program in ("bash", "dirname", "mkdir", "cat", "rm", "mv", "cp", "ln", "env", "tail"):
            (checkout.stand_ins / program).symlink_to(str(shutil.which(program)))
        checkout.more["PATH"] = str(checkout.stand_ins)
    else:
        checkout.stand_in("flock", f'#!/bin/sh\n[ "$1" != -n ] || exit {code}\n')
    done = checkout.setup()
    assert done.returncode == 0, done.stderr
    # A half-made environment is removed under a lock only: without one, another start may be at work in it.
    assert done.stdout.endswith(".venvs/1\n" if code == 1 else ".venvs/2\n")
    assert ("waiting for another start" in done.stderr) == (code == 1)


def test_settings_for_other_pythons_do_not_reach_pip(tmp_path: Path) -> None:
    checkout = Checkout.make(tmp_path)
    names = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "FORCE_COLOR", "PYTHONPATH", "PYTHONHOME")
    checkout.more.update(dict.fromkeys(names, "1"))
    assert checkout.setup().returncode == 0
    lines = checkout.log()
    assert [line.split() for line in lines if line.startswith("pip ")] == [["pip", "0"]]
    calls = [line for line in lines if line.startswith("python ") and line != "python --version"]
    assert calls
    assert all(line.startswith(("python -I ", "python -P ")) for line in calls), (
        "no module of the working folder is imported"
    )


@pytest.mark.parametrize("home", [None, ""])
def test_without_a_home_folder(tmp_path: Path, home: str | None) -> None:
    """Open MPI does not start without one."""
    checkout = Checkout.make(tmp_path)
    clear = "unset HOME" if home is None else "HOME="
    done = checkout.run(f"{clear}; source scripts/setup.sh; setup run")
    assert done.returncode == 0, done.stderr


def test_cdpath_does_not_lead_elsewhere(tmp_path: Path) -> None:
    checkout = Checkout.make(tmp_path)
    (tmp_path / "away" / "scripts").mkdir(parents=True)
    checkout.more["CDPATH"] = str(tmp_path / "away")
    assert checkout.run('source scripts/setup.sh; echo "$ROOT"').stdout == f"{checkout.folder}\n"


@pytest.mark.parametrize("stream", [">/dev/full", "> >(exec true)", ">&-"])
def test_a_line_that_cannot_be_written_ends_nothing(tmp_path: Path, stream: str) -> None:
    checkout = Checkout.make(tmp_path)
    script = "PROGRAM=x; say first; sleep 0.1; say second; echo alive; (say in a subshell); echo alive"
    done = checkout.run(f"source scripts/setup.sh; exec 2{stream}; {script}")
    assert (done.returncode, done.stdout) == (0, "alive\nalive\n")


def test_a_line_holds_no_control_characters(tmp_path: Path) -> None:
    checkout = Checkout.make(tmp_path)
    done = checkout.run("source scripts/setup.sh; say $'a\\e[31m\\nb' \"$(printf '%5000s')\"")
    assert done.stderr.startswith("bash: a?[31m?b ")
    assert len(done.stderr) == 2001


def test_no_number_is_computed_with_before_it_is_checked(tmp_path: Path) -> None:
    checkout = Checkout.make(tmp_path)
    values = "", "0", "-1", "x", "1e3", "9999999", "a[$(touch hacked)]"
    lines = "".join(f"(check_number VALUE '{value}') || true\n" for value in values)
    done = checkout.run(f"source scripts/setup.sh; {lines}")
    assert done.stderr.count("a whole number from 1 is wanted, e.g. VALUE=4") == len(values)
    assert not (checkout.folder / "hacked").exists()


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, "self,sm"),
        ({"MPI_VERSION": "4.1.4"}, "self,vader"),
        ({"OMPI_MCA_btl": "tcp,self"}, "tcp,self"),
        ({"SLURM_JOB_NUM_NODES": "2"}, ""),
        ({"PBS_NODEFILE": "/nodes"}, ""),
    ],
)
def test_ranks_of_one_machine_do_not_use_the_network(tmp_path: Path, more: dict[str, str], wanted: str) -> None:
    """Open MPI's TCP listens on all interfaces."""
    checkout = Checkout.make(tmp_path)
    checkout.more.update(more)
    script = "source scripts/setup.sh; choose_mpirun mpirun; stay_on_this_machine; echo ${OMPI_MCA_btl-}"
    assert checkout.run(script).stdout == f"{wanted}\n"
