"""Privacy: clipping and noise against their formulas, epsilon against its accountant, masks that cancel exactly."""

import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from ddpgd.errors import InputError
from ddpgd.run import build_federated, report
from ddpgd.training.federated import sums
from ddpgd.training.federated.privacy import Privacy
from runs import Record, records, train

FEW: Record = {"sync": "federated", "clients": 12, "client_fraction": 0.5, "local_epochs": 1, "client_batch": 9}
MISSING = "dp-accounting is not installed (pip install 'ddpgd[privacy]')"

pytestmark = pytest.mark.usefixtures("few_digits")


def federated(folder: Path, world_size: int = 1, **given: Any) -> Record:
    return train(folder, world_size, **FEW | {"global_batch": None, "steps": 3, "lr": 0.05} | given)


def private(**given: Any) -> Privacy:
    few = {"clip": 0.5, "noise": 1.0, "delta": 1e-5, "population": 100, "sampled": 10, "seed": 0}
    return Privacy(**few | given, support=np.repeat(np.float32([1, 0]), 5000))


@settings(max_examples=50)
@given(values=arrays(np.uint32, 8, elements=st.integers(0, 2**32 - 1)), count=st.integers(1, 50))
def test_limbs_add_modulo_two_to_the_32(values: np.ndarray, count: int) -> None:
    rows = np.zeros(24, np.float32)
    for _ in range(count):
        rows += sums.limbs(values)
    np.testing.assert_array_equal(sums.joined(rows), values * np.uint32(count))


@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_masks_cancel_exactly(drop: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"secure_aggregation": True, "drop": drop}
    masked = federated(tmp_path / "masked", 2, **given)
    own, sent = masked["masked_change"]["change"], masked["masked_change"]["masked"]
    assert all(one != other for one, other in zip(own, sent, strict=True))
    said = " ".join(f"{word:08x}" for word in sent)
    assert any(line.endswith(f"the server got {said}") for line in report.conclusion(masked, "runs/any"))
    monkeypatch.setattr(sums, "pair_mask", lambda _seed, _round, _first, _second, size: np.zeros(size, np.uint32))
    bare = federated(tmp_path / "bare", 2, **given)
    assert bare["params_sha256"] == masked["params_sha256"]
    assert bare["masked_change"] == {"change": own, "masked": own}


def test_fixed_point_is_close(tmp_path: Path) -> None:
    masked = federated(tmp_path / "masked", secure_aggregation=True)
    clear = federated(tmp_path / "clear")
    assert masked["params_sha256"] != clear["params_sha256"]
    assert masked["test_loss_mean"] == pytest.approx(clear["test_loss_mean"], rel=1e-5)
    assert clear["masked_change"] is None


def test_masks_of_pairs_differ() -> None:
    found = {sums.pair_mask(0, *key, 64).tobytes() for key in ((0, 0, 1), (0, 0, 2), (0, 1, 2), (1, 0, 1))}
    assert len(found) == 4


def test_no_round_moves_params_by_more_than_the_clip(tmp_path: Path) -> None:
    federated(tmp_path, dp_clip=0.01)
    assert all(0 < record["grad_norm"] <= 0.01 * (1 + 1e-6) for record in records(tmp_path))


def test_a_change_is_clipped_to_the_norm() -> None:
    assert private().factor(2.0) == 0.25
    assert private().factor(0.4) == private(clip=math.inf).factor(9.0) == 1.0


def test_noise_has_its_deviation_and_spares_what_is_no_param() -> None:
    """The mean over sampled clients: noise times clip over their number."""
    drawn = private(noise=3.0).draw(7)
    assert np.std(drawn[:5000]) == pytest.approx(3.0 * 0.5 / 10, rel=0.03)
    assert not drawn[5000:].any()
    np.testing.assert_array_equal(drawn, private(noise=3.0).draw(7))
    assert (drawn != private(noise=3.0).draw(8))[:5000].all()


@pytest.mark.parametrize(
    ("population", "sampled", "noise", "num_rounds", "delta"),
    [(1000, 100, 2.0, 50, 1e-5), (763430, 5000, 1.0, 200, 1e-9)],
)
def test_epsilon_is_the_accountant_s(
    population: int, sampled: int, noise: float, num_rounds: int, delta: float
) -> None:
    """The second: population, clients and delta of McMahan et al., 2018, table 1."""
    accounting = pytest.importorskip("dp_accounting", reason=MISSING)
    accountant = accounting.rdp.RdpAccountant(neighboring_relation=accounting.NeighboringRelation.REPLACE_ONE)
    event = accounting.SampledWithoutReplacementDpEvent(population, sampled, accounting.GaussianDpEvent(noise / 2))
    accountant.compose(accounting.SelfComposedDpEvent(event, num_rounds))
    own = private(population=population, sampled=sampled, noise=noise, delta=delta)
    assert own.epsilon(num_rounds) == pytest.approx(accountant.get_epsilon(delta), rel=1e-9)
    assert own.epsilon(0) is private(noise=0.0).epsilon(5) is None


def test_epsilon_is_told_and_grows_and_noise_is_the_same_on_any_ranks(tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting", reason=MISSING)
    given = {"dp_clip": 0.1, "dp_noise": 1.0, "dp_delta": 1e-3, "evaluate_every": 1}
    summaries = [federated(tmp_path / str(world_size), world_size, **given) for world_size in (1, 3)]
    assert summaries[0]["params_sha256"] == summaries[1]["params_sha256"]
    told = [record["epsilon"] for record in records(tmp_path / "1")]
    assert 0 < told[0] < told[1] < told[2] == summaries[0]["epsilon"]


def test_a_missing_accountant_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_federated, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"pip install 'ddpgd\[privacy\]'"):
        federated(tmp_path, dp_clip=1.0, dp_noise=1.0)
