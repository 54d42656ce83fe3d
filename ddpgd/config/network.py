"""The options of the network, of batches, and of augmentation."""

from dataclasses import dataclass
from typing import Any, Literal

from ddpgd.config.option import ALL, IntOrAll, fixed_option, option
from ddpgd.data.augmentations import AUGMENTATIONS
from ddpgd.data.pooling import MOST_POOLED
from ddpgd.kernels.dropout import DRAWS
from ddpgd.model.layers import ACTIVATIONS
from ddpgd.model.network import LOSSES
from ddpgd.params import INITS


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Options of what is trained on what, each a flag of `ddpgd train`."""

    hidden: tuple[int, ...] = fixed_option(
        (512,), "network", "widths of the hidden layers, as in 512,512; 0: none", tuple
    )
    activation: str = fixed_option("relu", "network", "activation function of the hidden layers", choices=ACTIVATIONS)
    init: str = fixed_option("he", "network", "distribution of the initial weights", choices=tuple(INITS))
    loss: str = fixed_option("cross-entropy", "network", "loss function", choices=tuple(LOSSES))
    label_smoothing: float = fixed_option(
        0.0,
        "network",
        "in training, share of each label that is spread over all classes, with --loss cross-entropy, as in 0.1",
        float,
    )
    dropout: float = fixed_option(
        0.0, "network", "in training, probability of leaving out each hidden unit for a sample, as in 0.5", float
    )
    input_dropout: float = fixed_option(0.0, "network", "the same of each input, as in 0.2", float)
    input_pool: int = fixed_option(
        1,
        "network",
        "side of the squares of pixels whose mean is one input: 2 makes 14 x 14 inputs of images of 28 x 28",
        int,
    )
    shards: int = fixed_option(
        1, "network", "parts in which each layer's width is computed, so that --tensor ranks can share it", int
    )
    seed: int = fixed_option(0, "network", "seed of the initial weights and the data order", int)

    global_batch: int | Literal["all"] | None = fixed_option(
        None, "batch", f"samples per update, over all ranks, or {ALL}: one update an epoch (default: 256)", IntOrAll
    )
    micro_batch: int = fixed_option(64, "batch", "samples in one forward and backward pass", int)
    accumulate: int | None = option(
        None, "batch", "micro-batches per rank and update, instead of --global-batch; fixed at the first start", int
    )

    augment: str = fixed_option(
        "none",
        "augmentation",
        "random change of each training image, anew in every epoch: affine maps, or elastic fields on top of them",
        choices=tuple(AUGMENTATIONS),
    )
    shift: float = fixed_option(2.0, "augmentation", "largest shift of an image, in pixels", float)
    rotate: float = fixed_option(10.0, "augmentation", "largest rotation, in degrees", float)
    scale: float = fixed_option(
        0.1, "augmentation", "largest change of height and of width, as in 0.1 for 0.9 to 1.1", float
    )
    shear: float = fixed_option(10.0, "augmentation", "largest angle of shear, in degrees", float)
    elastic_alpha: float = fixed_option(
        34.0,
        "augmentation",
        "with --augment elastic: factor of the displacements, in pixels before they are smoothed",
        float,
    )
    elastic_sigma: float = fixed_option(
        4.0,
        "augmentation",
        "with --augment elastic: standard deviation of the Gaussian that smooths them, in pixels",
        float,
    )


RANGES: dict[str, tuple[float, float, str]] = {
    "shards": (1, 1024, "1 to 1024"),
    "seed": (0, 2**64 - 1, "0 to 2^64 - 1"),
    "global_batch": (1, 2**24, "1 to 2^24, or all"),
    "micro_batch": (1, 2**24, "1 to 2^24"),
    "accumulate": (1, 2**20, "1 to 2^20"),
    "label_smoothing": (0, 1 - 1e-9, "at least 0 and below 1, as in 0.1"),
    **dict.fromkeys(("dropout", "input_dropout"), (0, 1 - 2**-16, "at least 0 and below 1, as in 0.5")),
    "input_pool": (1, MOST_POOLED, "1 to 256"),
    "shift": (0, 1000, "0 to 1000 pixels"),
    "rotate": (0, 180, "0 to 180 degrees"),
    "scale": (0, 0.9, "0 to 0.9, as in 0.1 for 0.9 to 1.1"),
    "shear": (0, 80, "0 to 80 degrees"),
    "elastic_alpha": (0, 1e6, "0 to 1000000 pixels"),
    "elastic_sigma": (0.1, 1000, "0.1 to 1000 pixels"),
}
"""The lowest and highest value of numbers, and both in words."""


def refusals(config: Any) -> list[tuple[bool, str]]:
    """Returns pairs of a fault and its line, of a configuration whose numbers are in their ranges."""
    batch = config.micro_batch if config.global_batch in (None, ALL) else config.global_batch
    return [
        *(
            (
                getattr(config, name) > 0 and not config.hidden,
                f"--{name.replace('_', '-')} has no effect: --hidden 0 has no hidden units; drop it, or type --hidden 512",
            )
            for name in ("dropout", "max_norm")
        ),
        *(
            (
                0 < getattr(config, name) < 1 / DRAWS,
                f"--{name.replace('_', '-')} {getattr(config, name):g}: a probability counts in steps of 1/{DRAWS}; type 0 or "
                "more than that, as in 0.5",
            )
            for name in ("dropout", "input_dropout")
        ),
        (
            config.micro_batch > batch,
            f"--micro-batch {config.micro_batch} is more than --global-batch {batch}; type --micro-batch {batch} or less",
        ),
    ]
