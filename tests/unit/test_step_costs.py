"""What the steps of several ranks cost together."""

import numpy as np
import pytest

from ddpgd.training.timing import StepCosts, shares


def test_what_others_wait_for_is_no_exchange() -> None:
    """Two steps of two ranks; the second computes longer, so the first waits for it."""
    first = np.array([[100.0, 100.0], [50.0, 60.0], [40.0, 30.0]])
    second = np.array([[100.0, 100.0], [70.0, 80.0], [20.0, 10.0]])
    found = shares([first, second])
    assert found == pytest.approx({"compute": 0.65, "wait": 0.10, "exchange": 0.15, "update": 0.10})
    assert sum(found.values()) == pytest.approx(1)


def test_no_steps_have_no_shares() -> None:
    assert shares([StepCosts().recent()] * 2) == {}
