"""State that survives a run: bit for bit at as many ranks, nothing lost at others, whatever ranks combine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.comm.grid import Shape
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.threads import Threads
from ddpgd.comm.wires import FORMATS
from ddpgd.config.schema import from_table
from ddpgd.config.units import plural
from ddpgd.kernels.reference.backend import Reference
from ddpgd.optim.rules import RULES
from ddpgd.run import build, checkpoint_search, resharding
from runs import digits, train

WAYS: dict[str, dict[str, Any]] = {
    **{name: {"wire": name, "error_feedback": True} for name in FORMATS},
    "topk": {"wire": "topk", "topk_density": 0.05, "topk_warmup": 1, "topk_masking": True},
    **{
        f"topk, {rule.name}": {"wire": "topk", "topk_density": 0.002, "optimizer": rule.name, "lr": 0.01}
        for rule in RULES.values()
        if rule.behind_top_k and rule.state
    },
    "powersgd": {"wire": "powersgd"},
    "local": {"sync": "local", "local_steps": 2},
    **{
        f"local, {rule.name}": {"sync": "local", "local_steps": 3, "optimizer": rule.name, "lr": 0.01}
        for rule in RULES.values()
        if rule.state
    },
    "local, outer momentum": {"sync": "local", "local_steps": 3, "outer_lr": 0.7, "outer_momentum": 0.9},
    "local, float16": {"sync": "local", "local_steps": 3, "wire": "float16", "error_feedback": True},
    "local, topk": {"sync": "local", "local_steps": 3, "wire": "topk", "topk_density": 0.2},
    "local, powersgd": {"sync": "local", "local_steps": 3, "wire": "powersgd"},
    "post-local": {"sync": "local", "local_steps": 3, "local_after": 4, "wire": "int8", "error_feedback": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("before", "after"), [(1, 1), (3, 3), (2, 3), (3, 1)])
@pytest.mark.usefixtures("few_digits")
def test_a_run_goes_on(way: str, before: int, after: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = WAYS[way] | {"steps": 13, "schedule": "constant", "checkpoint_every": 5}
    whole = train(tmp_path / "whole", before, **given)
    at = min((tmp_path / "whole" / "checkpoints").glob("step-*"))
    resumed = train(tmp_path / "whole", after, resume=str(at), run_dir=str(tmp_path / "on"), quiet=False)
    told = f"{plural(before, 'rank')} before, {plural(after, 'rank')} now: " in capsys.readouterr().out
    assert told == (before != after)
    if before == after:
        assert resumed["params_sha256"] == whole["params_sha256"]
    else:
        assert resumed["test_loss_mean"] == pytest.approx(whole["test_loss_mean"], rel=0.25)


@pytest.mark.parametrize("way", [way for way, given in WAYS.items() if given.get("wire")])
@pytest.mark.usefixtures("few_digits")
def test_no_residual_is_lost_where_ranks_are_fewer(way: str, tmp_path: Path) -> None:
    """The state in a checkpoint of 3 ranks equals that of 2 ranks which have read it: element by element."""
    train(tmp_path / "run", 3, **WAYS[way], steps=6)
    _, saved = checkpoint_search.find(tmp_path / "run", print)
    config = from_table(saved.config)
    total = _sums({name.rpartition(".")[0]: [] for name in saved.arrays}, saved.arrays)

    def work(transport: Threads) -> dict[str, NDArray[Any]]:
        live = build.sync(Reference(), config, digits(), build.grid(config, transport), 6)
        change = resharding.change(saved, config, Shape(2))
        resharding.restore(Reference(), transport, live.state, saved.arrays, change)
        return {
            name: vector.astype(np.float64)
            for name, vector in live.state.per_rank.items()
            if name.startswith("residual")
        }

    held = threads.run(2, work)
    assert held[0].keys()
    for kind in {name.rpartition(".")[0] for name in held[0]}:
        for velocity in (False, True):
            mine = [v for theirs in held for n, v in theirs.items() if _is(n, kind, velocity)]
            if mine:
                want = sum(v for n, v in total.items() if _is(n, kind, velocity))
                np.testing.assert_allclose(np.sum(mine, axis=0), want, rtol=0, atol=1e-6 * np.abs(want).max())
                assert np.abs(want).max() > 0


def _is(name: str, kind: str, velocity: bool) -> bool:
    return name.rpartition(".")[0] == kind and name.endswith("velocity") == velocity


def _sums(names: dict[str, Any], arrays: Any) -> dict[str, NDArray[np.float64]]:
    own = [name for name in names if f"{name}.0" in arrays]
    return {name: np.sum([arrays[f"{name}.{rank}"].astype(np.float64) for rank in range(3)], axis=0) for name in own}
