"""`ddpgd descend`: what it says of descents, what it writes, and what it refuses."""

import csv
import math
import xml.etree.ElementTree as ElementTree
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpgd.cli.main import main
from ddpgd.comm.transport import Alone
from ddpgd.comm.transports import threads
from ddpgd.lab import command, derivatives, descent, functions
from ddpgd.lab.functions import BUILT_IN
from ddpgd.optim.rules import ELEMENTWISE
from ddpgd.optim.schedules import SCHEDULES

VERDICTS = {
    "(x-3)**2 --from 0 --lr 0.1 --steps 50": "settled after 31 steps in a minimum",
    "bowl --lr 0.01": "creeps: after 50 steps the gradient is still 6.18 % of the first",
    "bowl --lr 0.1": "settled after 35 steps in a minimum",
    "bowl --lr 0.3": "diverged: after 21 steps the loss is 4.94e+07; a smaller --lr",
    "bowl --lr 0.25": "jumps from side to side",
    "line --steps 400": "settled after 328 steps in a minimum",
    "prices": "creeps",
    "prices --lr 0.0002": "diverged",
    "prices-normalised --steps 300": "settled",
    "double-well": "settled after",
    "saddle": "lingers on a saddle point",
    "plateau": "creeps",
    "rosenbrock --optimizer adam --lr 0.02 --steps 3000": "settled",
    "himmelblau": "settled",
    "sharp-flat": "settled",
    "parabola --method newton": "settled after 1 step in a minimum",
    "prices --method newton": "settled after 1 step in a minimum",
    "rosenbrock --method lbfgs --steps 100": "settled",
    "x**2 --from 1 --lr 1.05 --steps 5": "climbs",
    "exp(x**2) --from 3 --lr 1": "diverged",
    "log(x) --from 1 --lr 2": "diverged",
    "parabola --mistake plus --steps 5": "climbs",
    "x**1.5 --from 1 --lr 0.3 --steps 200": "diverged: after 4 steps the loss is nan",
    "x**1.5 --from 1 --method newton": "diverged",
    "sqrt(x) --from 1e-9 --method newton --steps 3": "diverged",
    "abs(x) --from 1 --lr 0.3": "jumps from side to side",
    "x**4 --from 0": "settled after 0 steps where it is flat",
}


def said(capsys: pytest.CaptureFixture[str], line: str, *more: str) -> list[str]:
    assert main(["descend", *line.split(), *more]) == 0
    return capsys.readouterr().out.splitlines()


def point(lines: list[str]) -> list[float]:
    """The params after the last step."""
    row = [line for line in lines if line[:6].strip().replace(",", "").isdigit()][-1]
    return [float(word) for word in row.split()[3:]]


@pytest.mark.parametrize("line", VERDICTS)
def test_verdicts(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, line)
    (verdict,) = [one for one in lines if one.startswith(f"{line.split()[0]}: ")]
    assert VERDICTS[line] in verdict


def test_minima_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert point(said(capsys, "parabola --lr 0.1 --steps 50")) == pytest.approx([3], abs=1e-4)
    assert point(said(capsys, "line --steps 400")) == pytest.approx([2, 0], abs=1e-2)
    assert point(said(capsys, "rosenbrock --optimizer adam --lr 0.02 --steps 3000")) == pytest.approx([1, 1], abs=1e-2)
    assert point(said(capsys, "rosenbrock --method lbfgs --steps 100")) == pytest.approx([1, 1], abs=1e-6)
    assert point(said(capsys, "parabola --method newton --steps 1")) == pytest.approx([3], abs=1e-9)


def test_the_closed_form_is_told_and_found(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "prices --method newton --steps 1")
    (told,) = [line for line in lines if line.startswith("closed form: ")]
    assert [float(word.split()[1]) for word in told.removeprefix("closed form: ").split(", ")] == pytest.approx(
        point(lines)
    )


@pytest.mark.parametrize("rule", ELEMENTWISE)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_rule_and_schedule_descends(rule: str, schedule: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, f"bowl --optimizer {rule} --schedule {schedule} --steps 60 --lr 0.02")
    first, last = (float(line.split()[1]) for line in (lines[1], lines[-2]))
    assert last < first


def test_momentum_s_first_steps_are_worked_out(capsys: pytest.CaptureFixture[str]) -> None:
    """x = 0, lr 0.1, momentum 0.5: velocities -6, -7.8, -7.14."""
    lines = said(capsys, "parabola --optimizer momentum --momentum 0.5 --lr 0.1 --steps 3")
    assert [float(line.split()[3]) for line in lines[1:5]] == pytest.approx([0, 0.6, 1.38, 2.094])


def test_a_plateau_lowers_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """At lr 1, x goes 0, 6, 0, 6; three losses were no better than the first, so lr is 0.1: 5.4, 4.92."""
    lines = said(capsys, "parabola --lr 1 --schedule reduce-on-plateau --plateau-patience 3 --steps 5")
    assert [float(line.split()[3]) for line in lines[1:7]] == pytest.approx([0, 6, 0, 6, 5.4, 4.92])


@pytest.mark.parametrize("line", ["line --batch 2 --steps 20", "xor --steps 20 --optimizer adam", "xor --method lbfgs"])
def test_ranks_have_the_bits_of_one(line: str) -> None:
    name, *words = line.split()
    flags = dict(zip([word.removeprefix("--") for word in words[::2]], words[1::2], strict=True))
    given = {"steps": int(flags.pop("steps", 10))} | (
        {"optimizer": flags.pop("optimizer")} if "optimizer" in flags else {}
    )
    parsed = {"function": name, **{key: int(value) if value.isdigit() else value for key, value in flags.items()}}
    alone = command.lines(given, parsed, Alone())
    for world_size in (2, 3, 4, 7):
        assert threads.run(world_size, lambda own: command.lines(given, parsed, own)) == [alone] * world_size


def test_samples_are_drawn_without_repetition() -> None:
    drawn = [descent._batch(number, 2, 5, seed=1) for number in range(6)]
    assert [len(one) for one in drawn] == [2, 2, 1] * 2
    assert sorted(chain(*drawn[:3])) == sorted(chain(*drawn[3:])) == [0, 1, 2, 3, 4]
    assert drawn[:3] != drawn[3:]


def test_single_samples_are_noisy_and_the_mean_is_not() -> None:
    line = functions.find("line")
    _, whole = derivatives.gradient(line, np.zeros(2), Alone())
    singles = [derivatives.gradient(line, np.zeros(2), Alone(), [number])[1] for number in range(5)]
    np.testing.assert_allclose(np.mean(singles, axis=0), whole)
    assert np.std(singles, axis=0).min() > 1


def test_equal_neurons_stay_equal() -> None:
    function = functions.xor(equal=True)
    neurons = np.arange(12).reshape(4, 3)
    _, grads = derivatives.gradient(function, np.array([param.data for param in function.params]), Alone())
    assert (grads[neurons] == grads[neurons[0]]).all()
    _, others = derivatives.gradient(
        functions.xor(), np.array([param.data for param in functions.xor().params]), Alone()
    )
    assert not (others[neurons[1:]] == others[neurons[0]]).any()


def test_mistakes_do_what_is_said_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    right = float(said(capsys, "xor --steps 300 --lr 0.2")[-2].split()[1])
    alike = float(said(capsys, "xor --steps 300 --lr 0.2 --mistake equal-init")[-3].split()[1])
    assert right < 0.01 < 0.3 < alike
    lines = said(capsys, "parabola --mistake forgotten-zero-grad --steps 1000")
    assert lines[-1].startswith("mistake: gradients of all steps add up")
    assert "settled" not in lines[-2]


def test_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"--out": "one.png", "--animate": "one.gif", "--csv": "one.csv", "--graph": "one.svg"}
    flags = [word for flag, name in names.items() for word in (flag, str(tmp_path / name))]
    said(capsys, "line --steps 7 --lr 0.03", *flags)
    with open(tmp_path / "one.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [*range(8)]
    assert {"loss", "gradient_norm", "slope", "intercept"} < rows[0].keys()
    assert [float(row["loss"]) for row in rows] == sorted((float(row["loss"]) for row in rows), reverse=True)
    with Image.open(tmp_path / "one.gif") as movie:
        assert movie.n_frames == 8
    with Image.open(tmp_path / "one.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 100
    assert "loss" in ElementTree.parse(tmp_path / "one.svg").getroot()[-2].text


@pytest.mark.parametrize("name", ["double-well", "bowl", "prices"])
def test_functions_of_one_two_and_more_params_are_drawn(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, f"{name} --steps 3", "--out", str(tmp_path / "one.svg"))
    assert (tmp_path / "one.svg").stat().st_size > 5000


def test_the_functions_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line.split()[0] for line in said(capsys, "")] == list(BUILT_IN)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("parabla", "descend: no function 'parabla' (did you mean parabola?)"),
        ("double-wel", "(did you mean double-well?)"),
        ("x^2", "^ is no power here; type ** instead"),
        ("1+2", "'1+2' has no param"),
        ("x+", "'x+' is no expression"),
        ("__import__('os').getcwd()+x", "is no part of an expression"),
        ("__import__('os')+x", "__import__(...) is unknown"),
        ("open(x)", "open(...) is unknown"),
        ("[x for x in y]", "is no part of an expression"),
        ("x.real+1", "'x.real' is no part of an expression"),
        ("x if x else 1", "is no part of an expression"),
        ("-" * 400 + "x", "over 300 characters"),
        ("sin(x,y)", "sin(...) is unknown"),
        ("True+x", "'True' is no part"),
        ("1e999*x", "is no part of an expression"),
        ("log(x)", "not finite where it starts; type another --from"),
        ("log(x) --method lbfgs", "not finite where it starts; type another --from"),
        ("log(x) --method newton", "not finite where it starts; type another --from"),
        ("parabola --from 1,2", "--from '1,2': a number is wanted for each of x; type for example --from=1"),
        ("parabola --from nan", "--from 'nan': a number is wanted"),
        ("bowl --from=1", "for each of b, w; type for example --from=1,1"),
        ("parabola --batch 1", "--batch: parabola has no data"),
        ("line --batch 6", "--batch 6: line has 5 samples; type 1 to 5"),
        ("parabola --mistake equal-init", "type ddpgd descend xor --mistake equal-init"),
        ("parabola --method newton --lr 1", "--lr: --method newton finds its steps itself"),
        ("line --method newton --batch 1", "--batch: --method newton wants true gradients"),
        ("parabola --tolerance -1", "--tolerance -1.0: must be at least 0"),
        ("parabola --momentum 0.5", "--momentum"),
        ("parabola --steps 1000000", "--steps 1000000: must be at most 100000"),
        ("parabola --csv /nowhere/x.csv", "--csv /nowhere/x.csv: there is no folder /nowhere"),
        ("parabola --out /nowhere/x.png", "--out /nowhere/x.png: there is no folder /nowhere"),
        ("parabola --animate x.png", "is no name of a GIF"),
        ("parabola --animate /nowhere/x.gif", "--animate /nowhere/x.gif: there is no folder /nowhere"),
    ],
)
def test_wrong_input_is_one_line(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    function, *flags = line.split(" --")
    assert main(["descend", *(f"--{one.replace(' ', '=')}" for one in flags), "--", function]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_expressions_equal_python() -> None:
    text = (
        "exp(-x**2/2) + sin(pi*y)*cos(x) - abs(y)/sqrt(x+3) + tanh(x*y) + log(e + x**2) + relu(x) + sigmoid(y) + x**-2"
    )
    made = functions.expression(text, (0.7, 1.3))
    known = {name: getattr(math, name) for name in ("exp", "sin", "cos", "sqrt", "tanh", "log", "pi", "e")}
    known |= {"abs": abs, "relu": lambda x: max(x, 0), "sigmoid": lambda x: 1 / (1 + math.exp(-x)), "x": 0.7, "y": 1.3}
    assert made.loss(0).data == pytest.approx(eval(text, known), rel=1e-14)


def test_clipping_bounds_steps(capsys: pytest.CaptureFixture[str]) -> None:
    """The gradient of 4 x^2 + y^2 in (3, 4) is (24, 8): clipped to (1, 1), or to a norm of 1."""
    line = "4*x**2+y**2 --from 3,4 --lr 0.5 --steps 1"
    assert point(said(capsys, line, "--clip-value", "1")) == pytest.approx([2.5, 3.5])
    norm = math.hypot(24, 8)
    assert point(said(capsys, line, "--clip-norm", "1")) == pytest.approx([3 - 12 / norm, 4 - 4 / norm], rel=1e-5)
    unclipped = [point(said(capsys, line, *more)) for more in ((), ("--clip-value", "30"), ("--clip-norm", "30"))]
    assert unclipped == [[-9.0, 0.0]] * 3
