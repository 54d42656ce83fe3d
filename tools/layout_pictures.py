"""Draws the pictures of docs/layouts.md: python -m tools.layout_pictures"""

from pathlib import Path
from typing import Any

from ddpgd.config.schema import Config, resolve
from ddpgd.scaling.layout_picture import draw

FOLDER = Path(__file__).parents[1] / "docs" / "layouts"
IMAGE_SHAPE = 28, 28
NUM_RANKS = 4
LAYOUTS: dict[str, dict[str, Any]] = {
    "data": {"shard_optimizer": "off"},
    "sharded": {"shard_optimizer": "on"},
    "tensor": {"tensor": 4},
    "data-tensor": {"tensor": 2},
    "data-pipeline": {"pipeline": 2},
    "pipeline-tensor": {"tensor": 2, "pipeline": 2},
}
"""The layouts of four ranks, by the name of their picture."""


def config_of(name: str) -> Config:
    """Returns the configuration of a picture: 784-512-512-10, global batch 256, four shards."""
    return resolve(Config(hidden=(512, 512), shards=4, **LAYOUTS[name]), NUM_RANKS)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in LAYOUTS:
        (FOLDER / f"{name}.svg").write_text(draw(config_of(name), IMAGE_SHAPE, NUM_RANKS), encoding="utf-8")


if __name__ == "__main__":
    main()
