"""Event files of TensorBoard hold what metrics.jsonl holds."""

import re
import struct
import sys
from pathlib import Path

import pytest

from ddpgd.errors import InputError
from ddpgd.run.tensorboard import check
from runs import records, train


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """By name and step, from the files in the order in which they were written."""
    event_pb2 = pytest.importorskip(
        "tensorboardX.proto.event_pb2", reason="tensorboardX is not installed (pip install 'ddpgd[tensorboard]')"
    )
    found = {}
    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            data = data[length + 16 :]
    return found


@pytest.mark.usefixtures("few_digits")
def test_every_number_of_a_record_at_its_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed (pip install 'ddpgd[tensorboard]')")
    train(tmp_path, 2, steps=6, log_every=2, tensorboard=True)
    found = scalars(tmp_path / "tensorboard")
    lines = records(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 4, 6]
    for line in lines:
        for name in ("train_loss_mean", "lr", "grad_norm"):
            assert found[name, line["step"]] == pytest.approx(line[name], rel=1e-6)
        for layer, norm in enumerate(line["layer_grad_norms"], start=1):
            assert found[f"layer_grad_norms/{layer}", line["step"]] == pytest.approx(norm, rel=1e-6)
    assert found["test_accuracy", 6] == pytest.approx(lines[-1]["test_accuracy"])


def test_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match="--tensorboard needs tensorboardX; type pip install"):
        check()


def test_the_readme_says_how_to_look() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert re.search(r"--tensorboard\b.*\btensorboard --logdir runs", readme, re.DOTALL)
