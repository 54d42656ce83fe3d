"""`ddpgd predict`: what the network of a checkpoint sees in pictures."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.data import picture
from ddpgd.errors import InputError, one_line
from ddpgd.run import checkpoint_search, inference
from ddpgd.run.stderr import say

_SURE = 0.9
"""Probability under which an answer is marked as unsure: 1 in 8 of MNIST's test images, of which 1 in 4 is read wrong."""


def lines(parsed: Mapping[str, Any]) -> Iterator[str]:
    """Yields an answer for each picture; one that has none is a line on standard error.

    Raises:
        InputError: There is no checkpoint; or, at the end, a picture had no answer.
    """
    _, saved = checkpoint_search.find_best(Path(parsed["checkpoint"]), say)
    names, pictures, num_refused = inference.class_names(saved), parsed["images"], 0
    for name in pictures:
        try:
            image = picture.prepare(Path(name), tuple(saved.facts["image_shape"]))
        except InputError as refusal:
            if len(pictures) == 1:
                raise
            say(str(refusal))
            num_refused += 1
            continue
        yield one_line(f"{name}: {_answer(inference.probabilities(saved, image[None])[0], names)}")
    if num_refused:
        raise InputError(f"{num_refused} of {len(pictures)} pictures have no answer, for the reasons above")


def _answer(probabilities: NDArray[np.float64], names: Sequence[str]) -> str:
    """Words what a network says of one image: float64 (C,), a name for each class."""
    best = int(probabilities.argmax())
    doubt = "" if probabilities[best] >= _SURE else ", unsure"
    shares = "  ".join(f"{name}: {100 * share:.1f} %" for name, share in zip(names, probabilities, strict=True))
    return f"{names[best]}{doubt}  ({shares})"
