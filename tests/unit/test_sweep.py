"""`ddpgd sweep`: the runs of a file, on any ranks in any groups, stopped and continued; and its results."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddpgd.cli.main import main
from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Alone
from ddpgd.comm.transports import threads
from ddpgd.errors import DdpgdError, InputError, MachineError
from ddpgd.results.row import COMPLETE, DIVERGES, FAILED, INTERRUPTED, PENDING, Row
from ddpgd.results.sweep import outcome, sweep
from ddpgd.results.sweep import page as sweep_page
from ddpgd.results.sweep.hand_out import HandOut
from ddpgd.results.sweep.outcome import Outcome
from ddpgd.results.sweep.plan import Plan, read_plan
from ddpgd.run.checkpoint import latest_step
from ddpgd.run.lock import RunLock
from ddpgd.run.summary import read_summary
from ddpgd.training.stopping import StopRequest
from html_pages import Page, page

BASE = 'data = "synthetic"\nhidden = 12\nglobal_batch = 50\nmicro_batch = 7\nsteps = 9\nevaluate_every = 4\nlog_every = 3\n'
GRID = BASE + '[sweep]\nlr = [0.01, 0.1, 1e30]\noptimizer = ["momentum", "adam"]\n'
ALONE = Launch("", 0, 1, 0)


def plan_of(text: str, folder: Path) -> Plan:
    (folder / "plan.toml").write_text(text)
    return read_plan(str(folder / "plan.toml"))


def swept(
    plan: Plan, out: Path, world_size: int = 1, ranks_per_run: int = 1, stop: Callable[[], StopRequest] = StopRequest
) -> tuple[dict[str, Row], DdpgdError | None]:
    """Makes a sweep on threads; `stop` makes the request of each rank."""
    return threads.run(world_size, lambda world: sweep.train_all(plan, out, world, ALONE, stop(), ranks_per_run))[0]


def results(rows: dict[str, Row]) -> dict[str, Any]:
    """Figures of rows that do not depend on the machine, and the bits of the params."""
    return {
        name: (row.state, row.accuracy, row.loss, row.steps, row.reason and row.state)
        + ((read_summary(row.path)["params_sha256"],) if row.state == COMPLETE else ())
        for name, row in rows.items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, dict[str, Any], Path]:
    """The grid, uninterrupted on one rank."""
    from ddpgd.data import synthetic
    from runs import digits

    folder = tmp_path_factory.mktemp("sweep")
    plan = plan_of(GRID, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "make", digits)
        rows, reason = swept(plan, folder / "out")
    assert reason is None
    return plan, results(rows), folder / "out"


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(("world_size", "ranks_per_run"), [(2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (3, 1)])
def test_results_are_equal_in_any_groups(
    world_size: int, ranks_per_run: int, whole: tuple[Plan, dict[str, Any], Path], tmp_path: Path
) -> None:
    plan, wanted, _ = whole
    rows, reason = swept(plan, tmp_path / "out", world_size, ranks_per_run)
    assert reason is None
    assert results(rows) == wanted


def test_a_run_that_diverges_is_a_row(whole: tuple[Plan, dict[str, Any], Path]) -> None:
    _, wanted, _ = whole
    states = {name: found[0] for name, found in wanted.items()}
    assert states["optimizer=momentum,lr=1e+30"] == DIVERGES
    assert states["optimizer=momentum,lr=0.1"] == COMPLETE
    assert len(states) == 6


@pytest.mark.usefixtures("few_digits")
def test_what_is_finished_is_not_repeated(
    whole: tuple[Plan, dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, wanted, out = whole

    def start(*_: object) -> None:
        raise AssertionError("a run began")

    monkeypatch.setattr(sweep.starting, "start_run", start)
    rows, _ = swept(plan, out, 2)
    assert results(rows) == wanted


class StopsAt(StopRequest):
    """A request that comes when it has been asked for so many times."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self._left = call

    def __bool__(self) -> bool:
        self._left -= 1
        if self._left < 0:
            self.reason = "SIGTERM came"
        return bool(self.reason)


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("calls", [(0,), (3,), (8, 5)])
@pytest.mark.parametrize(("world_size", "ranks_per_run"), [(1, 1), (2, 1), (4, 2)])
def test_a_sweep_that_was_stopped_goes_on(
    calls: tuple[int, ...],
    world_size: int,
    ranks_per_run: int,
    whole: tuple[Plan, dict[str, Any], Path],
    tmp_path: Path,
) -> None:
    plan, wanted, _ = whole
    for call in calls:
        rows, reason = swept(plan, tmp_path / "out", world_size, ranks_per_run, lambda call=call: StopsAt(call))  # type: ignore[misc]
        assert reason
        assert {row.state for row in rows.values()} & {INTERRUPTED, PENDING}
    rows, reason = swept(plan, tmp_path / "out", 2)
    assert reason is None
    assert results(rows) == wanted


@pytest.mark.usefixtures("few_digits")
def test_one_group_that_is_stopped_stops_all(whole: tuple[Plan, dict[str, Any], Path], tmp_path: Path) -> None:
    plan, wanted, _ = whole
    stops = iter([StopsAt(2), StopRequest()])
    rows, reason = swept(plan, tmp_path / "out", 2, 1, lambda: next(stops))
    assert reason
    assert any(row.state in (INTERRUPTED, PENDING) for row in rows.values())
    assert results(swept(plan, tmp_path / "out")[0]) == wanted


@pytest.mark.usefixtures("few_digits")
def test_runs_that_were_killed_go_on_or_begin_anew(whole: tuple[Plan, dict[str, Any], Path], tmp_path: Path) -> None:
    plan, wanted, _ = whole
    swept(plan, tmp_path / "out")
    first, second, *_ = (tmp_path / "out" / "runs" / name for name in plan.runs)
    (first / "summary.json").unlink()
    (second / "summary.json").unlink()
    for checkpoint in (second / "checkpoints").iterdir():
        checkpoint.unlink()
    assert latest_step(second / "checkpoints") == 0
    assert results(swept(plan, tmp_path / "out", 2)[0]) == wanted


@pytest.mark.usefixtures("few_digits")
def test_a_run_that_cannot_begin_is_a_row(tmp_path: Path) -> None:
    plan = plan_of(BASE + "[sweep]\nwarmup = [0, 1000]\n", tmp_path)
    rows, reason = swept(plan, tmp_path / "out", 2)
    assert reason is None
    assert rows["warmup=0"].state == COMPLETE
    assert rows["warmup=1000"].state == FAILED
    assert "--warmup" in rows["warmup=1000"].reason


def failing_at(lr: float, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets runs of that learning rate fail."""
    start = sweep.starting.start_run

    def failing(given: dict[str, Any], *others: Any) -> Any:
        if given["lr"] == lr:
            raise error
        return start(given, *others)

    monkeypatch.setattr(sweep.starting, "start_run", failing)


@pytest.mark.usefixtures("few_digits")
def test_a_failure_of_the_machine_ends_all_groups_and_results_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    failing_at(0.1, MachineError("no space left"), monkeypatch)
    plan = plan_of(BASE + "[sweep]\nlr = [0.2, 0.1, 0.3, 0.4]\n", tmp_path)
    rows, end = swept(plan, tmp_path / "two", 2)
    assert isinstance(end, MachineError)
    assert rows["lr=0.1"].state == PENDING
    assert main(["sweep", "plan.toml", "--out", "one"]) == 1
    assert "no space left" in capsys.readouterr().err
    states = [one["state"] for one in json.loads((tmp_path / "one" / "results.json").read_text())["runs"]]
    assert states == [COMPLETE, PENDING, PENDING, PENDING]


@pytest.mark.usefixtures("few_digits")
def test_a_run_that_needs_too_much_memory_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_at(0.2, MemoryError("9 TB"), monkeypatch)
    rows, end = swept(plan_of(BASE + "[sweep]\nlr = [0.1, 0.2, 0.3]\n", tmp_path), tmp_path / "out")
    assert end is None
    assert [row.state for row in rows.values()] == [COMPLETE, FAILED, COMPLETE]
    assert "not enough memory: 9 TB" in rows["lr=0.2"].reason


def cut_checkpoints(run: Path) -> None:
    (run / "summary.json").unlink()
    for checkpoint in (run / "checkpoints").glob("step-*"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:100])


def only_a_summary(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "config.toml").unlink()


def summary_of_tomorrow(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"news": 1}))


def records_damaged(run: Path) -> None:
    (run / "summary.json").unlink()
    first, *others = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([first, "garbage", *others, ""]))


def a_note_alone(run: Path) -> None:
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints")
    (run / "NOTES.txt").touch()


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    "damage", [cut_checkpoints, only_a_summary, summary_of_tomorrow, records_damaged, a_note_alone]
)
def test_a_run_that_cannot_go_on_is_a_row_and_its_files_stay(
    damage: Callable[[Path], None], whole: tuple[Plan, dict[str, Any], Path], tmp_path: Path
) -> None:
    plan, wanted, out = whole
    shutil.copytree(out, tmp_path / "out", symlinks=True)
    name = next(iter(plan.runs))
    run = tmp_path / "out" / "runs" / name
    damage(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    rows, end = swept(plan, tmp_path / "out", 2)
    assert end is None
    assert rows[name].state == FAILED
    assert "aside" in rows[name].reason or "remove that line" in rows[name].reason
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert {other: row for other, row in results(rows).items() if other != name} == {
        other: row for other, row in wanted.items() if other != name
    }


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "\xff"])
def test_a_damaged_base_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"sweep\.json is damaged; name another folder"):
        swept(plan_of(BASE + "[sweep]\nlr = [0.1]\n", tmp_path), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sweep.json"]


def test_a_folder_that_is_gone_is_a_failure_of_the_machine(tmp_path: Path) -> None:
    hand_out = HandOut(tmp_path, ["a"], Alone())
    hand_out.close()
    with pytest.raises(MachineError, match="No such file"):
        hand_out.next(Alone(), StopRequest())


def test_a_sweep_that_is_alive_is_left_alone(
    whole: tuple[Plan, dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, _, out = whole
    lock = RunLock(out)
    lock.acquire(print)
    (out / ".taken-1").mkdir()
    monkeypatch.setattr(sweep, "HandOut", None)
    with pytest.raises(InputError, match=f"--out {re.escape(str(out))}: in use by a run that is alive"):
        swept(plan, out, 2)
    lock.release()
    (out / ".taken-1").rmdir()


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(
    ("base", "line"),
    [
        ('data = "/nonexistent"', "there is no such folder"),
        ('data = "synthetic"\ntensor = 2\nshards = 2', "cannot form groups of 2"),
        ('data = "synthetic"\nsteps = 9\nwarmup = 1000', "no run can begin; the first: --warmup 1000"),
    ],
)
def test_a_base_that_cannot_work_leaves_nothing(base: str, line: str, world_size: int, tmp_path: Path) -> None:
    plan = plan_of(f"{base}\n[sweep]\nlr = [0.1, 0.2]\n", tmp_path)
    with pytest.raises(InputError, match=line):
        swept(plan, tmp_path / "out", world_size)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("few_digits")
def test_another_sweep_or_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(BASE + "[sweep]\nlr = [0.1]\n", tmp_path)
    swept(plan, tmp_path / "out")
    other = plan_of(BASE.replace("steps = 9", "steps = 5") + "[sweep]\nlr = [0.1]\n", tmp_path)
    with pytest.raises(InputError, match="holds a sweep with steps = 9, not 5"):
        swept(other, tmp_path / "out", 2)
    swept(plan_of(BASE + "[sweep]\nlr = [0.2]\n", tmp_path), tmp_path / "out")
    assert "runs has 1 run that the file has not, as lr=0.1" in capsys.readouterr().err
    more = plan_of(BASE + "checkpoint_every = 4\n[sweep]\nlr = [0.1, 0.2]\n", tmp_path)
    assert {row.state for row in swept(more, tmp_path / "out")[0].values()} == {COMPLETE}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(InputError, match="is there already, and no sweep"):
        swept(plan, tmp_path / "mine")
    with pytest.raises(InputError, match="does not divide 3 ranks"):
        swept(plan, tmp_path / "new", 3, 2)
    assert not (tmp_path / "new").exists()


def test_the_results_in_files(whole: tuple[Plan, dict[str, Any], Path], tmp_path: Path) -> None:
    plan, _, out = whole
    rows = {name: sweep._row(out / "runs" / name, "") for name in plan.runs}
    found = Outcome(plan, rows)
    sweep_page.write(found, tmp_path, 2)
    as_json = json.loads((tmp_path / "results.json").read_text())
    accuracies = [one["test_accuracy"] for one in as_json["runs"] if one["state"] == COMPLETE]
    assert accuracies == sorted(accuracies, reverse=True)
    assert as_json["best"] == as_json["runs"][0]["name"] == found.best
    assert as_json["chosen_by"] == "test_accuracy"
    assert {one["state"] for one in as_json["runs"][-2:]} == {DIVERGES}
    as_csv = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [one["name"] for one in as_csv] == [one["name"] for one in as_json["runs"]]
    said = page(tmp_path / "sweep.html")
    for words in (
        "Best run",
        found.best,
        "Test accuracy, %, over --lr",
        "over --optimizer",
        "diverged",
        "test samples",
    ):
        assert words in said.words
    (typed,) = re.findall(r"mpirun -n 2 ddpgd train [^<]*", (tmp_path / "sweep.html").read_text())
    best = found.plan.options(found.best)
    assert f"--optimizer {best['optimizer']} --lr {best['lr']:g}" in typed  # defaults are named, too
    Page((tmp_path / "sweep.svg").read_text())
    lines = outcome.lines(found)
    assert len(lines) == 7
    assert lines[0].split() == ["--lr", "--optimizer", "steps", "accuracy", "loss", "seconds", "state"]


def test_validation_samples_decide_where_there_are_some(tmp_path: Path) -> None:
    names = ("a", "b")
    plan = Plan({"validation": 100}, ("seed",), {name: {"seed": seed} for seed, name in enumerate(names)})
    rows = {
        "a": Row(tmp_path / "a", COMPLETE, accuracy=0.9, validation_accuracy=0.5),
        "b": Row(tmp_path / "b", COMPLETE, accuracy=0.8, validation_accuracy=0.6),
    }
    assert Outcome(plan, rows).best == "b"
    assert Outcome(Plan({}, ("seed",), plan.runs), rows).best == "a"
    assert "validation" in outcome.lines(Outcome(plan, rows))[0]
    swept = [Plan({}, ("validation",), {"a": {"validation": 0}, "b": {"validation": b}}) for b in (0, 600)]
    none, some = (Outcome(one, rows) for one in swept)
    assert (none.is_validated, none.best) == (False, "a")
    rows["a"] = Row(tmp_path / "a", COMPLETE, accuracy=0.9)
    assert (some.is_validated, some.best) == (True, "b")
    assert some.notes == ["1 run without validation samples cannot be compared with the others: a"]


def test_figures_are_not_called_as_options_are(tmp_path: Path) -> None:
    names = ("steps", "validation", "loss", "epochs")
    plan = Plan({}, names, {"a": dict.fromkeys(names, 7)})
    rows = {"a": Row(tmp_path, FAILED, steps=3, validation_accuracy=0.5, loss=2.0, reason="r" * 300)}
    found = Outcome(plan, rows)
    heads = outcome.lines(found)[0].split()
    assert len(set(heads)) == len(heads)
    (row,) = csv.DictReader(outcome.files(found)["results.csv"].splitlines())
    assert {row[name] for name in names} == {"7"}
    assert row["steps_done"] == "3"
    sweep_page.write(found, tmp_path, 1)
    said = page(tmp_path / "sweep.html").words
    assert "1 run: 1 failed;" in said
    assert "r" * 300 in said
    assert "Lines are named" not in said


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    plan = plan_of("[sweep]\nlr = [0.1, 0.2]\nhidden = [[64, 32], 8, []]\nerror_feedback = [false]\n", tmp_path)
    assert list(plan.runs) == [
        f"hidden={hidden},lr={lr},error_feedback=False" for lr in ("0.1", "0.2") for hidden in ("64-32", "8", "0")
    ]
    assert plan.options("hidden=64-32,lr=0.2,error_feedback=False")["hidden"] == (64, 32)


def test_draws_depend_on_seed_name_and_number_alone(tmp_path: Path) -> None:
    ranges = "lr = { low = 0.001, high = 1.0, log = true }\nmicro_batch = { low = 8, high = 64 }\n"
    few = plan_of(f"[sweep]\nrandom = 5\n{ranges}", tmp_path)
    many = plan_of(f"[sweep]\nrandom = 200\n{ranges}loss = ['cross-entropy']\n", tmp_path)
    drawn = [(one["lr"], one["micro_batch"]) for one in many.runs.values()]
    assert [(one["lr"], one["micro_batch"]) for one in few.runs.values()] == drawn[:5]
    rates, batches = zip(*drawn, strict=True)
    assert all(0.001 <= rate <= 1.0 for rate in rates)
    assert 60 < sum(rate < 0.0316 for rate in rates) < 140
    assert {min(batches), max(batches)} == {8, 64}
    other = plan_of(f"[sweep]\nrandom = 5\nrandom_seed = 1\n{ranges}", tmp_path)
    assert other.runs.keys().isdisjoint(few.runs)


def test_combinations_that_contradict_themselves_are_left_out(tmp_path: Path) -> None:
    plan = plan_of("[sweep]\nwire = ['float32', 'int8']\nerror_feedback = [false, true]\n", tmp_path)
    assert [(one["wire"], one["error_feedback"]) for one in plan.runs.values()] == [
        ("float32", False),
        ("int8", False),
        ("int8", True),
    ]
    (note,) = plan.notes
    assert "1 of 4 combinations are left out" in note
    assert "error_feedback=True" in note


def test_equal_combinations_are_told(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("steps = 3\n[sweep]\nlr = [0.1, 0.1, 0.2]\n")
    plan = read_plan(str(tmp_path / "plan.toml"))
    assert plan.notes == (f"{tmp_path / 'plan.toml'}: 3 combinations, 2 distinct",)


def test_equal_draws_are_told(tmp_path: Path) -> None:
    plan = plan_of("[sweep]\nrandom = 5\nlr = [0.1]\n", tmp_path)
    assert len(plan.runs) == 1
    assert plan.notes == (f"{tmp_path / 'plan.toml'}: 5 draws, 1 distinct",)


def test_names_do_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    lines = ["lr = [0.1, 0.2]\n", "seed = [1, 2]\n"]
    first, second = (plan_of("[sweep]\n" + "".join(order), tmp_path) for order in (lines, lines[::-1]))
    assert first.runs.keys() == second.runs.keys()
    assert all(first.options(name) == second.options(name) for name in first.runs)
    assert len(plan_of('[sweep]\ndata = ["a,b", "a-b"]\n', tmp_path).runs) == 2


def test_names_are_safe_and_distinct(tmp_path: Path) -> None:
    plan = plan_of(
        f'[sweep]\ndata = ["/a/b", "/a/c", "a b"]\nhidden = [[{"1000, " * 40}8], [{"1000, " * 40}9]]\n', tmp_path
    )
    assert len(plan.runs) == 6
    assert all(len(name) < 120 and "/" not in name and " " not in name for name in plan.runs)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr = 1\n", r"has no table \[sweep\]"),
        ("sweep = 3\n", r"has no table \[sweep\]"),
        ("[sweep]\n", "varies no option"),
        ("[sweep]\nrandom = 3\n", "varies no option"),
        ("[sweep]\nlrr = [1]\n", "did you mean lr"),
        ("lrr = 3\n[sweep]\nlr = [1]\n", "did you mean lr"),
        ("[sweep]\nlr = 3\n", "is not a list of values"),
        ("[sweep]\nlr = []\n", "is not a list of values"),
        ("[sweep]\nlr = ['a']\n", "is not a finite number"),
        ("lr = 0.1\n[sweep]\nlr = [1]\n", "lr varies in"),
        ("epochs = 3\n[sweep]\nsteps = [1]\n", "steps varies in .*, and epochs stands above it"),
        ("run_dir = 'x'\n[sweep]\nlr = [1]\n", "run_dir: a sweep sets it"),
        ("[sweep]\nranks = [1]\n", "ranks: a sweep sets it"),
        ("[sweep]\nlr = { low = 1, high = 2 }\n", "needs a number of draws"),
        ("[sweep]\nrandom = 3\nlr = { low = 2, high = 1 }\n", "low must be below high"),
        ("[sweep]\nrandom = 3\nlr = { low = 0, high = 1, log = true }\n", "above 0 where log"),
        ("[sweep]\nrandom = 3\nlr = { low = 1 }\n", "is not a range"),
        ("[sweep]\nrandom = 3\nlr = { low = 1, high = 2, step = 1 }\n", "is not a range"),
        ("[sweep]\nrandom = 3\noptimizer = { low = 1, high = 2 }\n", "only numbers have ranges"),
        ("[sweep]\nrandom = 0\nlr = [1]\n", "random: 0 is not a whole number from 1 to 10,000"),
        ("[sweep]\nrandom = 20000\nlr = [1]\n", "random: 20000 is not a whole number from 1 to 10,000"),
        ("[sweep]\nrandom = 3\nrandom_seed = -1\nlr = [1]\n", "random_seed: -1"),
        ("[sweep]\nrandom_seed = 3\nlr = [1]\n", "random_seed is for draws; type random = 20 as well, or drop it"),
        ("[sweep]\nerror_feedback = [true]\nwire = ['float32']\n", "run wire=float32,error_feedback=True: "),
        ("[sweep]\nlr = [-1, 1]\n", "run lr=-1: --lr -1.0: must be above 0"),
        ("[sweep]\nschedule = ['cosine', 'step']\ndrops = [3]\n", "run schedule=cosine,drops=3: --drops is for"),
        ("optimizer = 'sgd'\n[sweep]\nmomentum = [0.5]\n", "--momentum has no effect"),
        (f"[sweep]\nseed = {list(range(200))}\nlr = {[1 + one for one in range(200)]}\n", "more than 10,000"),
        ("[sweep", "not TOML"),
    ],
)
def test_a_wrong_file_is_one_line_and_makes_nothing(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        plan_of(text, tmp_path)
    assert main(["sweep", "plan.toml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


@pytest.mark.usefixtures("few_digits")
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr.toml").write_text(BASE + 'transport = "threads"\nranks = 4\n[sweep]\nlr = [0.1, 0.01]\n')
    assert main(["sweep", "lr.toml", "--ranks-per-run", "2"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "all of it in lr, as a page in lr/sweep.html"
    assert "chosen by accuracy on the test samples" in said.err
    assert {path.name for path in (tmp_path / "lr").iterdir()} == {
        *("runs", "sweep.json", "sweep.html", "sweep.svg", "results.csv", "results.json"),
    }
    assert main(["sweep", "lr.toml", "--ranks-per-run", "0"]) == 2
