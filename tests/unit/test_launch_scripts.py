"""launch/local.sh, slurm.sbatch and hosts.sh with stand-ins: numbers, names, and what reaches mpirun."""

from pathlib import Path

import pytest

from checkout import PYTHON, Checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout.make(tmp_path)


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT"])
def test_a_rank_a_core_whatever_the_number_of_threads(checkout: Checkout, name: str) -> None:
    """nproc obeys these variables."""
    checkout.stand_in("nproc", "#!/bin/sh\necho ${OMP_NUM_THREADS-${OMP_THREAD_LIMIT-2}}\n")
    checkout.more[name] = "1"
    done = checkout.run("launch/local.sh --data synthetic")
    assert done.returncode == 0, done.stderr
    log = checkout.log()
    assert any("-n 2" in line and "-P -m ddpgd train --data synthetic" in line for line in log)
    assert log[-1] == "btl self,sm terminal "


def test_the_launcher_works_from_any_folder_by_any_name(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "home").symlink_to(checkout.folder)
    done = checkout.run("../home/launch/local.sh --data synthetic", folder=checkout.stand_ins)
    assert done.returncode == 0, done.stderr
    assert any(f"{checkout.folder}/.venvs/1/bin/python -P -m ddpgd train" in line for line in checkout.log())


@pytest.mark.parametrize("ranks", ["0", "x", "-1", "9999999999999999999999", "a[$(touch hacked)]"])
def test_a_number_of_ranks_that_is_none(checkout: Checkout, ranks: str) -> None:
    checkout.more["RANKS"] = ranks
    done = checkout.run("launch/local.sh --data synthetic")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"local.sh: RANKS={ranks}: a whole number from 1 is wanted, e.g. RANKS=4"
    assert not (checkout.folder / "hacked").exists()


def slurm(checkout: Checkout, **more: str) -> tuple[int, str]:
    checkout.stand_in("scontrol", '#!/bin/sh\necho "scontrol $*" >>"$LOG"\necho JobState=RUNNING\n')
    checkout.more |= {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(checkout.folder), **more}
    done = checkout.run("bash launch/slurm.sbatch --data synthetic")
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("more", "ranks"),
    [
        ({"SLURM_NTASKS": "6"}, 6),
        ({"SLURM_JOB_NUM_NODES": "3"}, 3),
        ({"SLURM_JOB_NUM_NODES": "3", "SLURM_NTASKS_PER_NODE": "4"}, 12),
    ],
)
def test_the_ranks_of_a_job(checkout: Checkout, more: dict[str, str], ranks: int) -> None:
    code, stderr = slurm(checkout, **more)
    assert code == 0, stderr
    assert any(f"-n {ranks} " in line for line in checkout.log())


@pytest.mark.parametrize("name", ["SLURM_NTASKS", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS_PER_NODE"])
@pytest.mark.parametrize("value", ["2(x3)", "a[$(touch hacked)]"])
def test_junk_from_slurm_is_not_evaluated(checkout: Checkout, name: str, value: str) -> None:
    code, stderr = slurm(checkout, **{name: value})
    assert code == 2
    assert f"slurm.sbatch: {name}={value}: a whole number from 1 is wanted" in stderr
    assert not (checkout.folder / "hacked").exists()
    assert not any("requeue" in line for line in checkout.log())


def test_a_job_that_is_stopped_in_its_set_up_is_queued_again(checkout: Checkout) -> None:
    checkout.stand_in("python3", PYTHON.replace('"-I -m venv "*)', '"-I -m venv "*) kill -USR1 $PPID;'))
    code, stderr = slurm(checkout, SLURM_NTASKS="2")
    assert code == 75, stderr
    assert "SIGUSR1 came before the ranks had begun" in stderr
    assert "scontrol requeue 7" in checkout.log()


def hosts(checkout: Checkout, *texts: str) -> tuple[str, str]:
    """Reads host files of these texts, one after the other."""
    for number, text in enumerate(texts):
        (checkout.folder / f"hosts{number:02d}").write_bytes(text.encode())
    script = "PROGRAM=x; for file in hosts??; do (read_hosts $file) || true; done"
    done = checkout.run(f"source scripts/setup.sh; source launch/hosts.sh; {script}")
    return done.stdout, done.stderr


def test_a_host_file(checkout: Checkout) -> None:
    text = "# two\r\ngpu-a slots=4\r\n\r\n  10.0.0.2\tslots=2 # the second\nworker-0.job.ns.svc\n_x"
    assert hosts(checkout, text) == ("gpu-a 4\n10.0.0.2 2\nworker-0.job.ns.svc 1\n_x 1\n", "")


def test_what_is_no_name_of_a_machine_reaches_no_program(checkout: Checkout) -> None:
    names = (
        "-oProxyCommand=touch",
        "a,b",
        "a:9",
        "$(touch",
        "a;b",
        "a/b",
        ".",
        "a" * 300,
        "\u00fc",
        "a\x1b[31m",
        "user@a",
    )
    stdout, stderr = hosts(checkout, *(f"{name} slots=2\n" for name in names))
    lines = stderr.splitlines()
    assert stdout == ""
    assert len(lines) == len(names)
    assert all(line.endswith("is not the name of a machine; type a line as: gpu-a slots=4") for line in lines)
    assert max(map(len, lines)) < 250
    assert "\x1b" not in stderr


def test_slots_that_are_no_number(checkout: Checkout) -> None:
    slots = "slots=0", "slots=x", "slots=9999999999999999999999", "slots=a[$(touch hacked)]", "4"
    stdout, stderr = hosts(checkout, *(f"gpu-a {text}\n" for text in slots))
    assert stdout == ""
    assert stderr.splitlines() == [
        f'x: hosts{number:02d}: "gpu-a {text}" is not a machine; type a line as: gpu-a slots=4'
        for number, text in enumerate(slots)
    ]
    assert not (checkout.folder / "hacked").exists()
