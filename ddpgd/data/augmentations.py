"""Augmentations: what training does to images at random, in one table that flags, help, refusals and tests read."""

from dataclasses import dataclass

from ddpgd.kernels.augmentation import Augmentation

_AFFINE = ("shift", "rotate", "scale", "shear")


@dataclass(frozen=True)
class Kind:
    """A kind of augmentation.

    Attributes:
        name: The value of `--augment`.
        options: The options that have no meaning without it: the numbers of its `Augmentation`. None: images stay as they are.
        source: The publication, if there is one.
    """

    name: str
    options: tuple[str, ...] = ()
    source: str = ""


_ROWS = (
    Kind("none"),
    Kind(
        "affine",
        _AFFINE,
        'LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998',
    ),
    Kind(
        "elastic",
        (*_AFFINE, "elastic_alpha", "elastic_sigma"),
        'Simard, Steinkraus, Platt, "Best practices for convolutional neural networks applied to visual document '
        'analysis", 2003; on top of affine maps: Ciresan, Meier, Gambardella, Schmidhuber, "Deep, big, simple neural nets '
        'for handwritten digit recognition", 2010',
    ),
)

AUGMENTATIONS = {kind.name: kind for kind in _ROWS}
"""The kinds of augmentation, by name."""

AUGMENT_OPTIONS = ("augment", *dict.fromkeys(name for kind in _ROWS for name in kind.options))
"""The options of augmentation."""


def make(name: str, seed: int, image_shape: tuple[int, int], **numbers: float) -> Augmentation | None:
    """Returns the augmentation called `name`; None: images stay as they are.

    Args:
        name: A key of AUGMENTATIONS.
        seed: That of the run.
        image_shape: (rows, cols).
        numbers: The values of the kind's options.

    >>> make("none", 0, (28, 28)) is None, make("affine", 0, (28, 28), shift=2.0).shift
    (True, 2.0)
    """
    return Augmentation(seed, image_shape, **numbers) if AUGMENTATIONS[name].options else None
