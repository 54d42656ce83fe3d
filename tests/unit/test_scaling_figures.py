"""The figures of a scaling measurement from its runs: baselines, ratios, discarded runs, lost time, sentences."""

import re
from typing import Any

import pytest

from ddpgd.scaling import analysis
from ddpgd.scaling.analysis import rows, table
from ddpgd.scaling.cases import ISOLATED, STRONG, WEAK, Case, baseline, cases
from ddpgd.scaling.conclusion import conclusion

ALL = cases([STRONG, WEAK, ISOLATED], [1, 2, 4], ["float32"], [2], [1], 64)


def run(
    case: Case, samples_per_s: float, repetition: int = 1, other_load: float = 0.0, **parts: float
) -> dict[str, Any]:
    shares = {"compute": 1.0, "update": 0.0, "bubble": 0.0, "wait": 0.0, "exchange": 0.0} | parts
    return {
        "case": case.name,
        "repetition": repetition,
        "samples_per_s": samples_per_s,
        "step_s": case.global_batch / samples_per_s,
        "shares": shares,
        "other_load": other_load,
        "wire_bytes": 1000,
        "num_nodes": 1,
    }


def of(mode: str, num_ranks: int) -> Case:
    return next(case for case in ALL if (case.mode, case.num_ranks) == (mode, num_ranks))


def found(*runs: dict[str, Any], targets: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"runs": list(runs), "targets": list(targets)}


def test_strong_scaling_keeps_the_global_batch_and_weak_scaling_the_work_of_a_rank() -> None:
    assert {of(STRONG, number).global_batch for number in (1, 2, 4)} == {4 * 2 * 64}
    assert [of(WEAK, number).global_batch for number in (1, 2, 4)] == [128, 256, 512]
    # Each of those that run side by side does the work of one.
    assert of(ISOLATED, 4).flags[:2] == ["--global-batch", "128"]


def test_layouts_are_cases_where_they_divide_the_ranks() -> None:
    found = cases([STRONG], [1, 2, 4], ["float32"], [1], [1], 64, ["1x1", "2x1", "2x2"])
    assert [(case.num_ranks, case.setting) for case in found if case.num_ranks > 1] == [
        (2, "float32"),
        (2, "float32, tensor 2"),
        (4, "float32"),
        (4, "float32, tensor 2"),
        (4, "float32, tensor 2, pipeline 2"),
    ]
    assert len({case.name for case in found}) == len(found)
    assert found[-1].flags[-4:] == ["--tensor", "2", "--pipeline", "2"]
    assert baseline(found[-1], found) == found[0]


def test_the_baseline_is_one_rank_with_the_same_work() -> None:
    assert baseline(of(STRONG, 4), ALL) == of(STRONG, 1)
    assert baseline(of(WEAK, 2), ALL) == baseline(of(ISOLATED, 2), ALL) == of(WEAK, 1)


def test_efficiency_is_a_ratio_within_each_repetition() -> None:
    """The machine is half as fast in the second repetition; the ratio does not see it."""
    one, two = of(WEAK, 1), of(WEAK, 2)
    made = rows(found(run(one, 1000), run(two, 1800), run(one, 500, 2), run(two, 900, 2)), ALL, 2)
    assert made[1].efficiency == analysis.Figure(0.9, 0.9, 0.9)
    assert made[1].samples_per_s == analysis.Figure(1350, 900, 1800)


def test_disturbed_runs_are_discarded_and_counted() -> None:
    one, two = of(WEAK, 1), of(WEAK, 2)
    disturbed = run(two, 100, other_load=0.5)
    (_, row) = rows(found(run(one, 1000), disturbed, run(two, 1900)), ALL, 2)
    assert (row.num_runs, row.num_disturbed, row.efficiency.median) == (1, 1, 0.95)
    (_, row) = rows(found(run(one, 1000), disturbed), ALL, 2)
    assert (row.num_runs, row.efficiency.median, row.is_disturbed) == (1, 0.05, True)
    assert "measure again" in conclusion([row])[0]


def test_several_disturbed_runs_of_a_repetition_count_as_their_median() -> None:
    one, two = of(WEAK, 1), of(WEAK, 2)
    tries = [run(one, rate, other_load=1.0) for rate in (900, 1000, 1200)]
    base, row = rows(found(*tries, run(two, 1800)), ALL, 2)
    assert (base.efficiency.median, row.efficiency.median) == (1.0, 0.9)


def test_side_by_side_alone_has_its_baseline() -> None:
    assert [(case.mode, case.num_ranks) for case in cases([ISOLATED], [1, 2], ["float32"], [1], [1], 64)] == [
        (WEAK, 1),
        (ISOLATED, 2),
    ]


def test_ranks_on_several_machines_are_told() -> None:
    one, two = of(WEAK, 1), of(WEAK, 2)
    (sentence,) = conclusion(rows(found(run(one, 1000), run(two, 1500) | {"num_nodes": 2}), ALL, 2))
    assert "2 ranks on 2 machines do 1.50 times" in sentence


@pytest.mark.parametrize("mode", [STRONG, WEAK])
def test_what_is_lost_adds_up_to_what_a_step_takes_longer(mode: str) -> None:
    one, two = of(mode, 1), of(mode, 2)
    parts = {"compute": 0.6, "update": 0.1, "wait": 0.1, "exchange": 0.2}
    alone = run(one, 1000, compute=0.95, update=0.05)
    (_, row) = rows(found(alone, run(two, 1500, **parts)), ALL, 2)
    assert sum(row.lost_ms.values()) == pytest.approx(row.step_ms - row.perfect_ms)
    assert row.lost_ms["exchange"] == pytest.approx(0.2 * row.step_ms)
    repeated_ms = 0.1 * row.step_ms - 0.05 * 1000 * alone["step_s"] / 2
    assert row.lost_ms["update"] == pytest.approx(repeated_ms if mode == STRONG else 0)


def test_an_update_that_ranks_share_is_not_lost() -> None:
    one, two = of(STRONG, 1), of(STRONG, 2)
    (_, row) = rows(found(run(one, 1000, compute=0.9, update=0.1), run(two, 2000, compute=0.9, update=0.1)), ALL, 2)
    assert row.lost_ms["update"] == 0


def test_the_sentence_names_the_largest_loss_first_and_what_side_by_side_runs_reach() -> None:
    one, two, apart = of(WEAK, 1), of(WEAK, 2), of(ISOLATED, 2)
    runs = found(run(one, 1000), run(two, 1500, compute=0.7, wait=0.1, exchange=0.2), run(apart, 1900))
    (sentence,) = conclusion(rows(runs, ALL, 2))
    assert sentence.startswith(
        "Weak scaling, float32, accumulate 2: 2 ranks do 1.50 times the work of one in the same time"
    )
    assert sentence.index("the exchange of gradients 34.1 ms") < sentence.index("waiting for the slowest rank")
    assert "reach 95 % on this hardware; the ranks do 0.79 times their work" in sentence


@pytest.mark.parametrize("rate", [40, 1500, 90_000, 1_900_000])
@pytest.mark.parametrize("compute", [0.2, 0.45, 0.7])
def test_the_times_of_a_sentence_add_up(rate: float, compute: float) -> None:
    """With less computing than a perfect step, the sentence says how much was gained."""
    parts = {"compute": compute, "wait": 0.9 - compute, "exchange": 0.1}
    made = rows(found(run(of(WEAK, 1), rate / 1.5), run(of(WEAK, 2), rate, **parts)), ALL, 2)
    (sentence,) = conclusion(made)
    step, perfect, difference, *times = (float(number) for number in re.findall(r"([\d.]+) ms", sentence))
    gains = times[-1:] if "less" in sentence else []
    losses = times[: len(times) - len(gains)]
    assert step - perfect == pytest.approx(difference)
    assert sum(losses) - sum(gains) == pytest.approx(difference)
    assert bool(gains) == (made[1].lost_ms["computing"] < 0)


def test_oversubscribed_ranks_are_marked_and_say_nothing() -> None:
    made = rows(found(run(of(STRONG, 1), 1000), run(of(STRONG, 2), 1990), run(of(STRONG, 4), 2000)), ALL, 2)
    assert [row.is_oversubscribed for row in made] == [False, False, True]
    two, four = conclusion(made)
    assert two.endswith("an efficiency of 100 %. Almost nothing is lost.")
    assert "oversubscribed" in four


def test_a_target_that_was_not_always_reached_has_no_median() -> None:
    case = of(WEAK, 1)
    targets = ({"case": case.name, "train_s": None}, {"case": case.name, "train_s": 3.5})
    (row,) = table(rows(found(run(case, 1000), targets=targets), ALL, 2))
    assert (row["target_s"], row["target_reached"], row["target_tried"]) == (None, 1, 2)
    (row,) = table(rows(found(run(case, 1000), targets=targets[1:]), ALL, 2))
    assert (row["target_s"], row["target_reached"], row["target_tried"]) == (3.5, 1, 1)
