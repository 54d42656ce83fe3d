"""`ddpgd plan`: what it prints, draws and refuses; and what short runs tell the model."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ddpgd.cli.main import main
from ddpgd.comm.cluster import Link
from ddpgd.comm.transport import Alone
from ddpgd.comm.transports import threads
from ddpgd.comm.wires import FORMATS, WIRES
from ddpgd.config.schema import Config, resolve
from ddpgd.config.units import bytes_text, parse_count, parse_duration, parse_rate, time_text
from ddpgd.errors import InputError
from ddpgd.kernels.reference.backend import Reference
from ddpgd.scaling import fit, plan_inputs
from ddpgd.training.step import Step
from ddpgd.training.step_result import StepResult

STATED = ("plan", "--parameters", "25.6M", "--compute-time", "120ms", "--micro-batch", "32", "--link", "25Gbit")
SHORT = ("--measure", "--seconds", "0.2", "--hidden", "16", "--micro-batch", "8", "--link", "1Gbit")


def test_quantities_with_units() -> None:
    assert parse_rate("100Gbit", "link") == 12.5e9
    assert parse_rate("25GB", "link") == parse_rate("25 GB".replace(" ", ""), "link") == 25e9
    assert parse_rate("10mbit/s", "link") == 1.25e6
    assert parse_rate("100Gbps", "link") == parse_rate("100Gb/s", "link") == 12.5e9
    assert parse_duration("5us", "latency") == pytest.approx(5e-6)
    assert parse_duration("0.25s", "latency") == 0.25
    assert parse_count("25.6M", "parameters") == 25_600_000
    assert [time_text(seconds) for seconds in (0, 2e-8, 4.2e-5, 0.0123, 90)] == [
        "0",
        "20 ns",
        "42 us",
        "12.3 ms",
        "90 s",
    ]
    assert [bytes_text(number) for number in (12, 34_000, 1.5e6, 2e9)] == ["12 B", "34 KB", "1.5 MB", "2 GB"]


def test_a_line_for_each_number_of_ranks_and_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*STATED, "--ranks", "64,8", "--ranks-per-node", "8"]) == 0
    head, eight, sixty_four, epoch, nothing, *advice = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["ranks", "batch", "step"]
    assert eight.split()[:2] == ["8", "256"]
    assert sixty_four.split()[:2] == ["64", "2,048"]
    assert "60,000 samples" in epoch
    assert not nothing
    assert [line.split(":")[0].split(" ranks ")[0] for line in advice] == ["At 8", "At 64"]


def test_strong_scaling_keeps_the_global_batch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*STATED, "--ranks", "8,64", "--global-batch", "2048", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["global_batch"] for one in found["predictions"]] == [2048, 2048]
    assert [one["world_size"] for one in found["predictions"]] == [8, 64]
    assert found["fit"] is None
    first, second = found["predictions"]
    assert first["compute_s"] == pytest.approx(8 * second["compute_s"])
    assert second["epoch_s"] == pytest.approx(60_000 / second["samples_per_s"])


@pytest.mark.parametrize("name", ["plan.png", "plan.svg"])
def test_it_draws(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'ddpgd[plots]')")
    assert main([*STATED, "--ranks", "1,8,64", "--plot", str(tmp_path / name)]) == 0
    assert (tmp_path / name).stat().st_size > 5000


@pytest.mark.parametrize("wire", WIRES)
def test_short_runs_here_tell_what_computing_takes(wire: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *SHORT, "--wire", wire, "--ranks", "1,2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fit"]["num_params"] == 785 * 16 + 17 * 10
    assert found["fit"]["link"] is None
    assert all(found["fit"]["codings"][name][0] > 0 for name in FORMATS)
    alone, both = found["predictions"]
    assert 0 < alone["update_s"] == pytest.approx(both["update_s"] * (2 if wire == "float32" else 1))
    assert 0 < alone["compute_s"] - alone["update_s"] == pytest.approx(both["compute_s"] - both["update_s"])
    assert both["coding_s"] > 0
    assert both["step_s"] > alone["step_s"]


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_that_measure_get_the_same(world_size: int, capsys: pytest.CaptureFixture[str]) -> None:
    config = resolve(Config(hidden=(16,), global_batch=64, micro_batch=8), world_size)
    found = threads.run(world_size, lambda transport: fit.fit(Reference(), config, transport, 0.2))
    assert all(one == found[0] for one in found)
    assert found[0].costs.micro_batch_s + found[0].costs.sample_s > 0
    assert found[0].link is not None
    assert found[0].link.latency_s > 0
    assert found[0].link.bytes_per_s > 0
    assert not capsys.readouterr().out


def test_steps_of_clients_are_timed_apart_and_the_link_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of 8 rows in which nothing is sent, and one of 24, by ranks that send."""
    config, seen = resolve(Config(hidden=(16,), accumulate=1, micro_batch=8), 3), []
    run = fit._run

    def watched(*words: Any) -> Any:
        seen.append(run(*words))
        return seen[-1]

    monkeypatch.setattr(fit, "_run", watched)
    found = threads.run(3, lambda transport: fit.fit(Reference(), config, transport, 0.2, apart=True))
    assert all(one == found[0] for one in found)
    assert found[0].link is not None
    assert sorted((one.num_micro_batches, one.num_rows, one.wire_bytes > 0) for one in seen) == sorted(
        [(1, 8, False), (2, 8, False), (1, 8, True)] * 3
    )


def test_a_network_that_would_diverge_is_timed_with_its_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the default learning rate, without warm-up, five layers soon have gradients that are not finite."""
    applied = []
    run = Step.run

    def watched(step: Step, *words: Any) -> StepResult:
        applied.append(run(step, *words))
        return applied[-1]

    monkeypatch.setattr(Step, "run", watched)
    config = resolve(Config(hidden=(64,) * 5, lr=1e6, schedule="constant", global_batch=16, micro_batch=8), 1)
    fit.fit(Reference(), config, Alone(), 0.1)
    assert len(applied) > 30
    assert all(one.loss_sums and not one.halted for one in applied)


def run_of(num_micro_batches: int, compute_s: float) -> Any:
    return fit._Run(num_micro_batches, 256, compute_s, 0.0, 1e-4, 0.02, 0.0)


def test_costs_follow_from_two_runs() -> None:
    """256 rows in 4 micro-batches, and in 8: 2e-4 each, and 1e-5 a row."""
    found = fit._costs(run_of(4, 4 * 2e-4 + 256e-5), run_of(8, 8 * 2e-4 + 256e-5))
    assert (found.micro_batch_s, found.sample_s, found.update_s) == pytest.approx((2e-4, 1e-5, 1e-4))
    noisy = fit._costs(run_of(4, 3e-3), run_of(8, 2e-3))
    assert (noisy.micro_batch_s, noisy.sample_s) == pytest.approx((0, 3e-3 / 256))


def test_one_rank_has_no_link() -> None:
    config = resolve(Config(hidden=(), global_batch=16, micro_batch=8), 1)
    assert fit.fit(Reference(), config, Alone(), 0.1).link is None


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--ranks", "8"), "plan: the time of computing is missing; type --measure"),
        (("--parameters", "1M"), "type --compute-time 120ms with it"),
        (STATED[1:-2], "plan: the rate of the link is missing; type --link 100Gbit"),
        ((*STATED[1:], "--link", "fast"), "--link: 'fast' is not a rate; type for example 100Gbit"),
        ((*STATED[1:], "--latency", "5"), "--latency: '5' is not a time; type for example 5us"),
        ((*STATED[1:], "--compute-time", "0ms"), "--compute-time: '0ms' is not a time"),
        ((*STATED[1:], "--ranks", "8,many"), "--ranks: 'many' is not a whole number above 0"),
        ((*STATED[1:], "--ranks", "2.5"), "--ranks: '2.5' is not a whole number above 0"),
        (
            ("--measure", "--seconds", "1e9", "--link", "1Gbit", "--samples", "few"),
            "--samples: 'few' is not a whole number",
        ),
        ((*STATED[1:], "--overlap", "2"), "--overlap: '2' is not a fraction; type a number from 0 to 1"),
        ((*STATED[1:], "--wire", "powersgd"), "which matrices --wire powersgd would send"),
        ((*STATED[1:], "--local-steps", "16"), "--local-steps is for --sync local"),
        ((*STATED[1:], "--plot", "/no/such/folder/a.png"), "--plot /no/such/folder/a.png: there is no folder"),
        ((*STATED[1:], "--plot", "plan.txt"), "--plot plan.txt: is no name of a picture of ddpgd"),
        (("--measure", "--seconds", "soon", "--link", "1Gbit"), "--seconds: 'soon' is not a number above 0"),
        (("--measure", "--transport", "threads", "--link", "1Gbit"), "--transport threads"),
    ],
)
def test_wrong_input_is_one_line(arguments: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "--plot" in arguments:
        pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'ddpgd[plots]')")
    assert main(["plan", *arguments]) == 2
    printed = capsys.readouterr()
    assert line in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not printed.out


@pytest.mark.parametrize(
    ("num_nodes", "flags", "inside", "between"),
    [
        (1, {}, "measured", "measured"),
        (1, {"link": "100Gbit"}, "measured", "stated"),
        (2, {}, "assumed", "measured"),
        (2, {"ranks_per_node": "8"}, "assumed", "measured"),
        (2, {"link": "100Gbit"}, "assumed", "stated"),
    ],
)
def test_a_measured_link_lies_where_its_ranks_are(
    num_nodes: int, flags: dict[str, str], inside: str, between: str
) -> None:
    stated = Link(parse_duration("20us", "latency"), plan_inputs.ACHIEVED * parse_rate("100Gbit", "link"))
    links = {"measured": Link(1e-3, 1e6), "assumed": plan_inputs.INSIDE, "stated": stated}
    fitted = fit.Fit(plan_inputs.STATED, {}, links["measured"], 100, 2, num_nodes)
    found = plan_inputs.cluster({"latency": "20us", **flags}, fitted)
    assert (found.inside, found.between) == (links[inside], links[between])


def test_what_is_measured_inside_a_machine_is_no_network() -> None:
    fitted = fit.Fit(plan_inputs.STATED, {}, Link(1e-3, 1e6), 100, 2, 1)
    with pytest.raises(InputError, match="the measured link is inside one machine"):
        plan_inputs.cluster({"ranks_per_node": "8"}, fitted)


@pytest.mark.parametrize(
    "flags", [["--ranks", "5k"], ["--accumulate", "1048576"], ["--ranks", "50k", "--reduce", "fast"]]
)
def test_large_numbers_are_answered(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Work must not grow with the number of micro-batches: these did not end."""
    assert main(["plan", "--parameters", "25.6M", "--compute-time", "120ms", "--link", "100Gbit", *flags]) == 0
    assert "60,000 samples" in capsys.readouterr().out


def test_advice_stays_within_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "--parameters", "25.6M", "--compute-time", "1ms", "--link", "1Gbit", "--ranks", "64"])
    for batch in re.findall(r"a global batch of ([0-9,]+)", capsys.readouterr().out):
        assert int(batch.replace(",", "")) <= 60_000


def test_two_networks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--parameters", "25.6M", "--compute-time", "1ms", "--link", "1Gbit", "--hidden", "64"]
    assert main(["plan", *flags]) == 2
    assert "--hidden and --parameters both name a network" in capsys.readouterr().err


LAYOUTS = (
    *("plan", "--layouts", "--hidden", "512,512", "--shards", "4", "--global-batch", "512", "--ranks", "4"),
    *("--compute-time", "4ms", "--micro-batch", "64", "--link", "10Gbit", "--ranks-per-node", "4"),
)


def test_layouts_are_listed_by_speed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LAYOUTS, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["layouts"]["4"]
    shapes = {(row["shape"]["data"], row["shape"]["pipeline"], row["shape"]["tensor"]) for row in rows}
    assert shapes == {(4, 1, 1), (2, 1, 2), (1, 1, 4), (2, 2, 1), (1, 2, 2)}
    assert [row["step_s"] for row in rows] == sorted(row["step_s"] for row in rows)
    for row in rows:
        assert (row["bubble_s"] > 0) == (row["shape"]["pipeline"] > 1)
        assert row["step_s"] == pytest.approx(row["passes_s"] + row["exchange_s"] + row["update_s"])


def test_a_layout_that_does_not_fit_is_not_proposed(capsys: pytest.CaptureFixture[str]) -> None:
    """Data parallel ranks hold all params, and a row of gradients for each micro-batch under way."""
    assert main([*LAYOUTS, "--memory", "8MB"]) == 0
    told = capsys.readouterr().out
    lines = [line for line in told.splitlines() if line.lstrip().startswith("4  ")]
    assert len(lines) == 1
    assert lines[0].endswith("does not fit")
    assert re.search(r"The fastest that fits: --(tensor|pipeline) [24]", told)
    assert main([*LAYOUTS, "--memory", "1KB"]) == 0
    assert "No layout fits: type more --ranks or more --shards" in capsys.readouterr().out


def test_over_a_slow_link_ranks_that_send_less_are_proposed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LAYOUTS, "--ranks", "2", "--ranks-per-node", "1", "--link", "100Mbit"]) == 0
    assert "The fastest that fits: --" in capsys.readouterr().out
    assert main([*LAYOUTS, "--ranks", "2", "--inside", "1000GB", "--inside-latency", "1us"]) == 0
    assert "pipeline 1" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            ("--layouts", *STATED[1:]),
            "--layouts: --parameters does not say which layers there are; type --hidden 512,512",
        ),
        ((*STATED[1:], "--memory", "80GB"), "--memory is for --layouts; type that as well, or drop it"),
        ((*LAYOUTS[1:], "--memory", "80"), "--memory: '80' is not a number of bytes; type for example 80GB"),
        (
            (*LAYOUTS[1:], "--wire", "topk"),
            "--layouts: ranks with parts of the params want --sync every-step, and a wire that sends all of them",
        ),
    ],
)
def test_wrong_questions_on_layouts_are_one_line(
    flags: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *flags]) == 2
    assert line in capsys.readouterr().err
