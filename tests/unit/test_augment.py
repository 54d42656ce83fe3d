"""Augmentation: what is drawn, whole shifts and turns, fields against SciPy, and runs with the same bits on any ranks."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from augment_laws import AFFINE, CASES, Images, over_cases, places
from ddpgd.cli import main as cli
from ddpgd.config.schema import Config
from ddpgd.data import augmentations
from ddpgd.data.augmentations import AUGMENTATIONS
from ddpgd.errors import Interrupted
from ddpgd.kernels.augmentation import NUM_MAP_DRAWS, Augmentation
from ddpgd.kernels.philox import Purpose, sample_words
from ddpgd.kernels.reference import augment as reference
from ddpgd.kernels.reference.augment import affine_maps, augment, elastic_fields, warp
from ddpgd.kernels.reference.scratch import Scratch
from ddpgd.run import augmentation_sheet, checkpoint_search
from ddpgd.training.stopping import StopRequest
from runs import Record, digits, records, train

Array = NDArray[Any]

IDENTITY = np.zeros(NUM_MAP_DRAWS, np.float32)
DOWN, RIGHT, ANGLE, TALL, WIDE, SLANT = range(NUM_MAP_DRAWS)


def images(*shape: int) -> Array:
    return np.random.default_rng(8).integers(0, 256, shape, dtype=np.uint8)


def mapped(originals: Array, **numbers: float) -> Array:
    """The images (R, rows, cols) under one map, whose other numbers are 0."""
    drawn = np.tile(IDENTITY, (len(originals), 1))
    for name, value in numbers.items():
        drawn[:, globals()[name]] = value
    return np.array(warp(Scratch(), originals, affine_maps(drawn, originals.shape[1:]), None))


def shifted(original: Array, down: int, right: int) -> Array:
    """By slices; zeros come in."""
    rows, cols = original.shape
    wanted = np.zeros_like(original)
    source = original[max(0, -down) : rows - max(0, down), max(0, -right) : cols - max(0, right)]
    wanted[max(0, down) : rows + min(0, down), max(0, right) : cols + min(0, right)] = source
    return wanted


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, 0), (0, -2), (-4, 5), (6, 6), (-6, 9), (40, 0)])
def test_whole_shifts_are_slices(down: int, right: int) -> None:
    originals = images(3, 7, 10)
    wanted = shifted(originals[0], down, right) if abs(down) < 7 and abs(right) < 10 else np.zeros((7, 10))
    np.testing.assert_array_equal(mapped(originals, DOWN=down, RIGHT=right)[0], wanted)


@pytest.mark.parametrize("quarters", [-2, -1, 1, 2])
def test_quarter_turns_are_counter_clockwise(quarters: int) -> None:
    originals = images(2, 28, 28)
    found = mapped(originals, ANGLE=quarters * math.pi / 2)
    np.testing.assert_allclose(found, np.rot90(originals, quarters, axes=(1, 2)), atol=255e-5)


def test_scale_and_shear_move_what_they_should() -> None:
    """Twice as tall, an image has each row twice; under a shear, rows above the middle go one way and those below the other."""
    ramp = np.tile(np.arange(9, dtype=np.uint8)[:, None] * 10, (1, 1, 5)).reshape(1, 9, 5)
    np.testing.assert_allclose(mapped(ramp, TALL=1.0)[0, :, 2], 40 + 5.0 * np.arange(-4, 5), atol=1e-4)
    np.testing.assert_allclose(
        mapped(ramp.transpose(0, 2, 1).copy(), WIDE=1.0)[0, 2], 40 + 5.0 * np.arange(-4, 5), atol=1e-4
    )
    line = np.zeros((1, 9, 9), np.uint8)
    line[0, :, 4] = 255
    slanted = mapped(line, SLANT=math.atan(0.5))[0]
    assert slanted.argmax(axis=1)[::2].tolist() == [2, 3, 4, 5, 6]
    np.testing.assert_allclose(slanted[1::2].sum(axis=1), 255, rtol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 1e-3, 0.5, math.pi / 2, -2.5, math.pi])
def test_sine_and_cosine(angle: float) -> None:
    found = reference._sine_and_cosine(np.array([angle], np.float32))
    np.testing.assert_allclose(np.ravel(found), [math.sin(angle), math.cos(angle)], atol=3e-7)


@over_cases
def test_places_against_scipy(augmentation: Augmentation) -> None:
    """The law of ops with SciPy's interpolation, and its Gaussian filter where there are fields."""
    there = Images(augmentation.image_shape)
    samples = there.samples(4)
    found = augment(Scratch(), there.pixels, samples, 5, augmentation)
    for sample, pixels in zip(samples.tolist(), found, strict=True):
        image = there.pixels[sample].reshape(augmentation.image_shape).astype(np.float64)
        wanted = ndimage.map_coordinates(image, places(augmentation, sample), order=1, mode="grid-constant")
        far = max(augmentation.image_shape) + augmentation.elastic_alpha
        np.testing.assert_allclose(pixels.reshape(wanted.shape), wanted, atol=255 * 32 * far * 2**-23)


@pytest.mark.parametrize(("sigma", "image_shape"), [(4.0, (28, 28)), (0.5, (9, 14)), (6.0, (5, 3)), (1.3, (1, 1))])
def test_fields_are_gaussian_filters_of_uniform_values(sigma: float, image_shape: tuple[int, int]) -> None:
    draws = np.random.default_rng(3).uniform(-1, 1, (6, 2 * image_shape[0] * image_shape[1])).astype(np.float32)
    found = elastic_fields(Scratch(), draws, Augmentation(0, image_shape, elastic_alpha=34.0, elastic_sigma=sigma))
    for field, drawn in zip(found.reshape(12, *image_shape), draws.reshape(12, *image_shape), strict=True):
        wanted = 34 * ndimage.gaussian_filter(drawn.astype(np.float64), sigma, mode="constant")
        np.testing.assert_allclose(field, wanted, atol=34e-6)


def test_draws_are_spread_evenly_over_their_range() -> None:
    """Each number of a map, over samples: within its range, both ends reached, mean and deviation of a uniform one."""
    augmentation, num = Augmentation(9, (28, 28), **AFFINE), 4000
    draws = reference._draws(Scratch(), np.arange(num), 2, augmentation)[:, :NUM_MAP_DRAWS]
    assert (draws >= -1).all()
    assert (draws < 1).all()
    assert (draws.min(axis=0) < -0.995).all()
    assert (draws.max(axis=0) > 0.995).all()
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=4 / math.sqrt(3 * num))
    np.testing.assert_allclose(draws.std(axis=0), 1 / math.sqrt(3), rtol=0.03)
    correlation = np.corrcoef(draws.T) - np.eye(NUM_MAP_DRAWS)
    assert np.abs(correlation).max() < 4 / math.sqrt(num)
    spreads = [2.5, 2.5, math.radians(25), 0.2, 0.2, math.radians(15)]
    np.testing.assert_allclose(augmentation.spreads, spreads, rtol=1e-6)


def test_samples_epochs_and_seeds_are_independent() -> None:
    """Draws of neighbouring samples, epochs and seeds are all different, and not correlated; those of fields neither."""
    streams = [
        reference._draws(Scratch(), np.arange(300), epoch, Augmentation(seed, (4, 4), elastic_alpha=1.0)).copy()
        for seed, epoch in itertools.product((0, 1), (0, 1, 2))
    ]
    whole = np.array(streams)
    assert len(np.unique(whole)) > 0.99 * whole.size
    for one, other in itertools.combinations([stream.ravel() for stream in streams], 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(one.size)
    neighbours = whole[:, :-1].ravel(), whole[:, 1:].ravel()
    assert abs(np.corrcoef(*neighbours)[0, 1]) < 4 / math.sqrt(neighbours[0].size)


def test_words_are_those_of_the_sample_in_its_epoch() -> None:
    augmentation = CASES[0]
    draws = reference._draws(Scratch(), np.array([41, 7]), 3, augmentation)
    words = sample_words(augmentation.seed, Purpose.AUGMENT, 3, np.array([7]), 1)
    assert draws[1, 0] == ((int(words[0, 0]) & 0xFFFFFFFF) >> 8) / 2**23 - 1
    assert draws[1, 1] == (int(words[0, 0]) >> 40) / 2**23 - 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_kind_takes_its_own_numbers(name: str) -> None:
    options = AUGMENTATIONS[name].options
    made = augmentations.make(name, 3, (28, 28), **dict.fromkeys(options, 0.5))
    if made is None:
        assert not options
    else:
        assert all(getattr(made, option) == 0.5 for option in options)
        assert bool(made.elastic_alpha) == ("elastic_alpha" in options)


RUNS: dict[str, Record] = {
    "affine": {"augment": "affine"},
    "elastic": {"augment": "elastic", "global_batch": 64, "micro_batch": 9, "optimizer": "adam", "lr": 0.01},
    "fields alone": {"augment": "elastic", "shift": 0.0, "rotate": 0.0, "scale": 0.0, "shear": 0.0},
    "local": {"augment": "affine", "sync": "local", "local_steps": 2, "local_after": 3},
}
"""Configurations with augmentation; nine steps are more than an epoch of 330 samples."""
over_runs = pytest.mark.parametrize("name", RUNS)


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("name", [name for name in RUNS if name != "local"])
def test_the_same_bits_on_any_number_of_ranks(name: str, tmp_path: Path) -> None:
    alone = train(tmp_path / "1", **RUNS[name])
    for world_size in (2, 3, 4):
        summary = train(tmp_path / str(world_size), world_size, **RUNS[name])
        assert summary["params_sha256"] == alone["params_sha256"]
        assert records(tmp_path / str(world_size)) == records(tmp_path / "1")


@pytest.mark.usefixtures("few_digits")
@over_runs
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    name: str, before: int, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = before if name == "local" else after
    whole = train(tmp_path / "whole", before, **RUNS[name])
    asked = itertools.count()
    with monkeypatch.context() as patched:
        patched.setattr(StopRequest, "__bool__", lambda _: next(asked) == 4)
        with pytest.raises(Interrupted):
            train(tmp_path / "cut", before, **RUNS[name])
    assert 0 < checkpoint_search.find(tmp_path / "cut", print)[1].counters["step"] < 9
    resumed = train(tmp_path / "cut", after, resume="")
    assert resumed["params_sha256"] == whole["params_sha256"]
    assert records(tmp_path / "cut") == records(tmp_path / "whole")


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(("tensor", "pipeline", "world_size"), [(2, 1, 2), (1, 2, 2), (2, 2, 4), (1, 3, 3)])
def test_layouts_have_the_bits_of_one_rank(tensor: int, pipeline: int, world_size: int, tmp_path: Path) -> None:
    given: Record = {"hidden": (13, 9), "shards": 4, "augment": "elastic"}
    alone = train(tmp_path / "1", **given)
    summary = train(tmp_path / "cut", world_size, tensor=tensor, pipeline=pipeline, **given)
    assert summary["params_sha256"] == alone["params_sha256"]


@pytest.mark.usefixtures("few_digits")
def test_each_number_changes_the_run_and_none_of_them_the_evaluation(tmp_path: Path) -> None:
    """With a learning rate of nearly 0 the network stays as it is: only evaluation counts, and it sees images as they are."""
    plain = train(tmp_path / "plain")
    changed = [{}, {"shift": 1.0}, {"rotate": 5.0}, {"scale": 0.2}, {"shear": 5.0}, {"elastic_alpha": 9.0}]
    found = [
        train(tmp_path / str(number), augment="elastic", **given)["params_sha256"]
        for number, given in enumerate([*changed, {"elastic_sigma": 2.0}, {"seed": 1}])
    ]
    assert len({plain["params_sha256"], *found}) == len(found) + 1
    still: Record = {"lr": 1e-30, "weight_decay": 0.0}
    evaluated = [train(tmp_path / f"still {kind}", augment=kind, **still) for kind in ("none", "elastic")]
    assert len({(run["test_loss_mean"], run["test_accuracy"]) for run in evaluated}) == 1
    assert len({run["train_loss_mean"] for run in evaluated}) == 2


@pytest.mark.usefixtures("few_digits")
def test_the_sheet_has_images_as_they_are_and_as_training_sees_them(tmp_path: Path) -> None:
    images = augmentation_sheet.variants(Config(augment="affine", shift=3.0), digits())
    np.testing.assert_array_equal(images[:, 0], digits().train_images[: len(images)])
    assert len({image.tobytes() for image in images[0]}) == images.shape[1]
    path = tmp_path / "sheet.png"
    assert cli.main(["data", "--data", "synthetic", "--augment", "elastic", "--out", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
