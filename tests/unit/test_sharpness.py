"""Sharpness: how far the loss rises in a box around a run's params, on functions where that is known."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ddpgd.run import checkpoint_search
from runs import digits, train, write_small_digits
from tools import hand_drawn
from tools.sharpness import TrainingLoss, main, sharpness


def bowl(curvature: float, params: list[float], floor: float = 0.0) -> Any:
    """A loss that is least at `params`, by half the curvature times the squared distance."""
    lowest = np.array(params)

    class Loss(SimpleNamespace):
        def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
            away = point - lowest + 1e-7  # not quite in the minimum, where the gradient shows no way up
            return floor + curvature / 2 * float(away @ away), curvature * away

    return Loss(params=lowest)


@pytest.mark.parametrize(("curvature", "epsilon"), [(1.0, 1e-3), (400.0, 1e-3), (400.0, 5e-4)])
def test_a_bowl_rises_to_the_corners_of_the_box(curvature: float, epsilon: float) -> None:
    params = [0.0, 3.0, -7.0]
    reach = epsilon * (np.abs(params) + 1)
    rise = curvature / 2 * float(reach @ reach)
    assert sharpness(bowl(curvature, params), epsilon) == pytest.approx(100 * rise, rel=1e-3)
    assert sharpness(bowl(curvature, params, floor=3.0), epsilon) == pytest.approx(25 * rise, rel=1e-3)


@pytest.mark.usefixtures("few_digits")
def test_the_training_loss_and_its_gradient(tmp_path: Path) -> None:
    train(tmp_path, validation=30, steps=40, activation="tanh")
    loss = TrainingLoss(checkpoint_search.find(tmp_path, print)[1], digits())
    value, grads = loss(loss.params)
    rng = np.random.default_rng(0)
    for _ in range(3):
        away = rng.standard_normal(len(grads)) * (grads != 0)
        step = 1e-2 / np.linalg.norm(away)
        numeric = (loss(loss.params + step * away)[0] - loss(loss.params - step * away)[0]) / (2 * step)
        assert numeric == pytest.approx(
            float(grads @ away), abs=1e-3 * float(np.linalg.norm(grads) * np.linalg.norm(away))
        )
    assert value > 0
    assert sharpness(loss, 1e-3) > sharpness(loss, 5e-4) > 0


@pytest.mark.parametrize("tool", [main, hand_drawn.main])
@pytest.mark.usefixtures("few_digits")
def test_wrong_input_is_a_line(tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    write_small_digits(tmp_path / "data")
    train(tmp_path / "run", steps=3)
    for run, data in (("run", "nosuch"), ("nosuch", "data"), ("run", "data")):
        with pytest.raises(SystemExit, match="2"):
            tool([str(tmp_path / run), "--data", str(tmp_path / data)])
        assert "error: " in capsys.readouterr().err
