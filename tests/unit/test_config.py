"""The configuration: every option survives TOML, flags win, defaults resolve, resumed runs keep what defines them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from ddpgd.cli import arguments as command_line
from ddpgd.comm.wires import WIRES, Kind, Wire
from ddpgd.config.continuation import continued
from ddpgd.config.federated import FEDERATED_OPTIONS
from ddpgd.config.parsing import coerce
from ddpgd.config.schema import MUTUALLY_EXCLUSIVE, OPTIONS, Config, flag, from_table, resolve, to_table
from ddpgd.config.toml_file import read_toml
from ddpgd.config.validation import validate
from ddpgd.errors import InputError
from ddpgd.optim.schedules import SCHEDULES

# For every option, a value that is not its default, and the text that its flag takes for it.
OTHER: dict[str, tuple[Any, str]] = {
    "data": ("synthetic", "synthetic"),
    "run_dir": ("runs/a b", "runs/a b"),
    "resume": ("runs/first", "runs/first"),
    "evaluate_every": (5, "5"),
    "checkpoint_every": (6, "6"),
    "log_every": (7, "7"),
    "quiet": (True, ""),
    "epochs": (3, "3"),
    "steps": (11, "11"),
    "until_accuracy": (0.98, "0.98"),
    "validation": (5000, "5000"),
    "patience": (4, "4"),
    "until_grad_norm": (0.25, "0.25"),
    "until_loss_fall": (0.01, "0.01"),
    "max_time": (1.5, "1.5"),
    "hang_timeout": (12.5, "12.5"),
    "inject": ("hang@0:5", "hang@0:5"),
    "check_every": (50, "50"),
    "heal": (True, ""),
    "elastic": (True, ""),
    "record": (True, ""),
    "hidden": ((512, 64), "512,64"),
    "activation": ("tanh", "tanh"),
    "init": ("xavier", "xavier"),
    "loss": ("mse", "mse"),
    "label_smoothing": (0.125, "0.125"),
    "dropout": (0.5, "0.5"),
    "max_norm": (2.5, "2.5"),
    "input_dropout": (0.25, "0.25"),
    "input_pool": (2, "2"),
    "seed": (2**63 - 1, str(2**63 - 1)),
    "global_batch": (96, "96"),
    "micro_batch": (32, "32"),
    "accumulate": (2, "2"),
    "augment": ("elastic", "elastic"),
    "shift": (3.0, "3"),
    "rotate": (15.0, "15"),
    "scale": (0.25, "0.25"),
    "shear": (5.0, "5"),
    "elastic_alpha": (20.0, "20"),
    "elastic_sigma": (5.0, "5"),
    "optimizer": ("adam", "adam"),
    "lr": (1e-3, "0.001"),
    "momentum": (0.8, "0.8"),
    "schedule": ("constant", "constant"),
    "warmup": (9, "9"),
    "restarts": (5, "5"),
    "drops": (4, "4"),
    "drop_factor": (0.5, "0.5"),
    "end_factor": (0.125, "0.125"),
    "rise_fraction": (0.25, "0.25"),
    "div_factor": (10.0, "10"),
    "final_div_factor": (100.0, "100"),
    "max_momentum": (0.975, "0.975"),
    "min_momentum": (0.75, "0.75"),
    "plateau_factor": (0.5, "0.5"),
    "plateau_patience": (2, "2"),
    "plateau_threshold": (0.01, "0.01"),
    "scale_lr": ("linear:256", "linear:256"),
    "weight_decay": (1e-4, "1e-4"),
    "clip_norm": (2.5, "2.5"),
    "clip_value": (0.25, "0.25"),
    "non_finite": ("skip", "skip"),
    "backend": ("numpy", "numpy"),
    "precision": ("bfloat16", "bfloat16"),
    "replay": ("persistent", "persistent"),
    "share_gpu": (True, None),
    "transport": ("threads", "threads"),
    "ranks": (4, "4"),
    "wire": ("int8", "int8"),
    "error_feedback": (True, ""),
    "tensorboard": (True, ""),
    "topk_density": (0.125, "0.125"),
    "topk_warmup": (2, "2"),
    "topk_masking": (True, ""),
    "powersgd_rank": (3, "3"),
    "reduce": ("fast", "fast"),
    "exchange": ("two-level", "two-level"),
    "shard_optimizer": ("on", ""),
    "shards": (4, "4"),
    "tensor": (2, "2"),
    "pipeline": (2, "2"),
    "pipeline_schedule": ("gpipe", "gpipe"),
    "stages": ((2, 1), "2,1"),
    "overlap": ("on", ""),
    "sync": ("local", "local"),
    "local_steps": (9, "9"),
    "local_after": (4, "4"),
    "outer_lr": (0.75, "0.75"),
    "outer_momentum": (0.5, "0.5"),
    "rounds": (50, "50"),
    "clients": (20, "20"),
    "client_fraction": (0.5, "0.5"),
    "local_epochs": (2, "2"),
    "client_batch": ("all", "all"),
    "partition": ("shards:2", "shards:2"),
    "client_weights": ("equal", "equal"),
    "proximal": (0.01, "0.01"),
    "server_optimizer": ("adam", "adam"),
    "drop": (0.25, "0.25"),
    "stragglers": (0.5, "0.5"),
    "dp_clip": (1.5, "1.5"),
    "dp_noise": (0.75, "0.75"),
    "dp_delta": (1e-4, "1e-4"),
    "client_figures": ("off", "off"),
    "secure_aggregation": (True, ""),
}
FIXED = {
    "validation",
    *(
        "hidden",
        "activation",
        "init",
        "loss",
        *("label_smoothing", "dropout", "input_dropout", "input_pool", "max_norm"),
        "seed",
        "shards",
        "global_batch",
        "micro_batch",
        *("augment", "shift", "rotate", "scale", "shear", "elastic_alpha", "elastic_sigma"),
        "optimizer",
        "lr",
        "momentum",
    ),
    *(
        "schedule",
        *("warmup", "restarts", "drops", "drop_factor", "end_factor"),
        *(option for curve in SCHEDULES.values() for option in curve.options),
        "scale_lr",
        "weight_decay",
        *("clip_norm", "clip_value"),
        "non_finite",
        "precision",
        "reduce",
        "wire",
        "error_feedback",
        "topk_density",
        "topk_warmup",
        "topk_masking",
        "powersgd_rank",
        "sync",
        "local_steps",
        "local_after",
        "outer_lr",
        "outer_momentum",
    ),
    *(name for name in FEDERATED_OPTIONS if name not in ("rounds", "client_figures")),
}

over_options = pytest.mark.parametrize("name", OPTIONS)


def parse(*arguments: str) -> dict[str, Any]:
    """The configuration that `ddpgd train` reads from a command line."""
    given: dict[str, Any] = command_line.parse(["train", *arguments])["given"]
    return given


def test_every_option_is_in_the_table_with_another_value() -> None:
    assert OTHER.keys() == OPTIONS.keys()
    for name, (value, _) in OTHER.items():
        assert value != OPTIONS[name].default


@over_options
def test_an_option_survives_toml(name: str, tmp_path: Path) -> None:
    config = replace(Config(), **{name: OTHER[name][0]})
    path = tmp_path / "config.toml"
    path.write_bytes(tomli_w.dumps(to_table(config)).encode())
    table = read_toml(str(path))
    assert table[name] == OTHER[name][0]
    assert Config(**table) == from_table(table) == config


@over_options
def test_a_flag_means_what_the_file_means(name: str) -> None:
    value, text = OTHER[name]
    assert parse(flag(name), *([text] if text else [])) == {name: value}


@over_options
def test_flags_win_over_the_file(name: str, tmp_path: Path) -> None:
    value, text = OTHER[name]
    in_file = False if name == "quiet" else OPTIONS[name].default
    path = tmp_path / "config.toml"
    table = {} if in_file is None else to_table(replace(Config(), **{name: in_file}))
    path.write_text(tomli_w.dumps({"epochs": 5, "lr": 0.5} | table))
    given = parse("--config", str(path), flag(name), *([text] if text else []))
    assert given[name] == value
    rivals = {rival for pair in MUTUALLY_EXCLUSIVE if name in pair for rival in pair if rival != name}
    assert given.keys() >= {"epochs", "lr", name} - rivals
    assert given.keys().isdisjoint(rivals)


def test_a_file_fills_what_no_flag_says(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("epochs = 5\nlr = 1\nhidden = 0\n")
    assert parse("--config", str(path), "--epochs", "7") == {"epochs": 7, "lr": 1.0, "hidden": ()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rate = 1", "there is no option 'learning_rate'"),
        ("epoch = 1", "did you mean epochs"),
        ("epochs = 1.5", "epochs: 1.5 is not a whole number"),
        ("global_batch = 'al'", "global_batch: 'al' is not a whole number, or all; type for example 64"),
        ("epochs = true", "epochs: True is not a whole number"),
        ("epochs = [1]", r"epochs: \[1\] is not a whole number"),
        ("lr = nan", "lr: nan is not a finite number"),
        ("lr = 1" + "0" * 400, "lr: .* is not a finite number"),
        ("seed = 1" + "0" * 400, "seed: .* is not a whole number"),
        ("hidden = [512, 1.5]", "hidden: .* is not whole numbers joined by commas; type for example 512,512"),
        (
            "hidden = [512, 1" + "0" * 400 + "]",
            "hidden: .* is not whole numbers joined by commas; type for example 512,512",
        ),
        ("quiet = 1", "quiet: 1 is not true or false"),
        ("optimizer = 'adma'", "did you mean adam"),
        ("optimizer = ''", "optimizer: '' is not a text"),
        ("data = 5", "data: 5 is not a text"),
        ("epochs = ", "not TOML"),
        ("\xff", "not TOML"),
    ],
    ids=lambda value: value[:30],
)
def test_a_bad_file_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=said) as caught:
        read_toml(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value).removesuffix("\n")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read it"):
        read_toml(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--lr", "inf"),
        ("--lr", "fast"),
        ("--seed", "1e3"),
        ("--seed", "1" + "0" * 400),
        ("--hidden", "512,,"),
        ("--hidden", ""),
        ("--stages", "a"),
        ("--loss", "huber"),
        ("--learning-rate", "1"),
        ("--lr",),
        ("--epoch", "3"),
        ("extra",),
    ],
    ids=lambda arguments: " ".join(arguments)[:30],
)
def test_a_bad_flag_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(InputError):
        parse(*arguments)


@pytest.mark.parametrize(
    ("text", "widths"), [("512,64", (512, 64)), ("7", (7,)), ("0", ()), ([512], (512,)), ([], ()), (8, (8,))]
)
def test_hidden(text: Any, widths: tuple[int, ...]) -> None:
    assert coerce(OPTIONS["hidden"], text, "--hidden") == widths


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**64}, "--seed"),
        ({"epochs": 0}, "--epochs 0"),
        ({"steps": 0}, "--steps 0"),
        ({"epochs": 1, "steps": 1}, "--epochs and --steps"),
        ({"global_batch": 64, "accumulate": 1}, "--global-batch and --accumulate"),
        ({"global_batch": 32}, "--micro-batch 64 is more than --global-batch 32"),
        ({"global_batch": 0}, "--global-batch 0"),
        ({"dropout": 1e-6}, "--dropout 1e-06: a probability counts in steps of 1/65536"),
        ({"input_dropout": 1e-5}, "--input-dropout 1e-05: a probability"),
        (
            {"hidden": (), "optimizer": "muon"},
            "--optimizer muon: --hidden 0 has no hidden weight matrices; type --optimizer adamw",
        ),
        ({"schedule": "one-cycle", "momentum": 0.5}, "--momentum: --schedule one-cycle cycles it; type --max-momentum"),
        (
            {"schedule": "one-cycle", "optimizer": "sgd", "max_momentum": 0.9},
            "--max-momentum: --optimizer sgd has no momentum that could cycle",
        ),
        (
            {"schedule": "one-cycle", "optimizer": "muon", "min_momentum": 0.8},
            "--min-momentum: --optimizer muon has no",
        ),
        (
            {"sync": "local", "until_grad_norm": 0.1},
            "--until-grad-norm: with --sync local there is no gradient of all ranks",
        ),
        ({"sync": "federated", "client_batch": 0}, "--client-batch 0: must be 1 to"),
        ({"micro_batch": 0}, "--micro-batch 0"),
        ({"accumulate": 0}, "--accumulate 0"),
        ({"lr": 0.0}, "--lr 0.0"),
        ({"lr": -1.0}, "--lr -1.0"),
        ({"momentum": 1.0}, "--momentum 1.0"),
        ({"momentum": -0.1}, "--momentum -0.1"),
        ({"weight_decay": -1.0}, "--weight-decay"),
        ({"clip_norm": -1.0}, "--clip-norm"),
        ({"until_accuracy": 0.0}, "--until-accuracy"),
        ({"until_accuracy": 98.0}, "--until-accuracy"),
        ({"max_time": 0.0}, "--max-time"),
        ({"hang_timeout": -1.0}, "--hang-timeout"),
        ({"check_every": -1}, "--check-every"),
        ({"hidden": (0, 5)}, "--hidden 0,5"),
        ({"hidden": (-5,)}, "--hidden -5"),
        ({"log_every": 0}, "--log-every"),
        ({"evaluate_every": 0}, "--evaluate-every"),
        ({"checkpoint_every": 0}, "--checkpoint-every"),
        ({"ranks": 2}, "--ranks counts threads"),
        ({"transport": "threads"}, "--transport threads needs"),
        ({"transport": "threads", "ranks": 0}, "--ranks 0"),
        ({"scale_lr": "cubic:256"}, "--scale-lr cubic:256"),
        ({"scale_lr": "linear"}, "--scale-lr linear"),
        ({"scale_lr": "linear:0"}, "--scale-lr linear:0"),
        ({"scale_lr": "linear:x"}, "--scale-lr linear:x"),
    ],
)
def test_a_value_out_of_range_or_at_odds_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        validate(Config(**given))


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
def test_only_exact_wires_take_fast_and_only_codecs_error_feedback(wire: Wire) -> None:
    for given, kind in (({"reduce": "fast"}, Kind.EXACT), ({"error_feedback": True}, Kind.BLOCK_SCALED)):
        config = Config(wire=wire.name, **given)
        if wire.kind is kind:
            validate(config)
        else:
            with pytest.raises(InputError, match=f"--wire {wire.name}"):
                validate(config)


def test_the_defaults_are_valid() -> None:
    validate(Config())
    validate(resolve(Config(), 3))


@pytest.mark.parametrize(
    ("given", "world_size", "global_batch"),
    [
        ({}, 1, 256),
        ({}, 7, 256),
        ({"micro_batch": 512}, 2, 512),
        ({"global_batch": 100}, 3, 100),
        ({"accumulate": 1}, 1, 64),
        ({"accumulate": 2, "micro_batch": 50}, 3, 300),
    ],
)
def test_the_global_batch_is_resolved_once(given: dict[str, Any], world_size: int, global_batch: int) -> None:
    resolved = resolve(Config(**given), world_size)
    assert resolved.global_batch == global_batch
    assert resolved.accumulate is None
    assert resolve(resolved, world_size + 1) == resolved


@pytest.mark.parametrize(("given", "length"), [({}, (10, None)), ({"steps": 5}, (None, 5)), ({"epochs": 2}, (2, None))])
def test_the_length_is_resolved(given: dict[str, Any], length: tuple[int | None, int | None]) -> None:
    resolved = resolve(Config(**given), 1)
    assert (resolved.epochs, resolved.steps) == length


def test_what_is_fixed_is_what_defines_the_weights() -> None:
    assert {name for name, option in OPTIONS.items() if option.metadata["fixed"]} == FIXED


@pytest.mark.parametrize("name", sorted(FIXED))
def test_a_resumed_run_keeps_what_is_fixed(name: str) -> None:
    saved = resolve(Config(), 1)
    with pytest.raises(InputError, match=f"^{flag(name)} .*drop the flag"):
        continued(saved, {name: OTHER[name][0]}, 1)
    assert continued(saved, {name: getattr(saved, name)}, 1) == saved


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - FIXED - {"accumulate"}))
def test_a_resumed_run_may_change_what_is_not(name: str) -> None:
    assert getattr(continued(resolve(Config(), 1), {name: OTHER[name][0]}, 1), name) == OTHER[name][0]


def test_a_resumed_run_takes_accumulate_that_makes_the_same_global_batch() -> None:
    """A job that is started again comes with the same words."""
    saved = resolve(Config(accumulate=2, micro_batch=32), 3)
    assert continued(saved, {"accumulate": 2}, 3) == saved
    with pytest.raises(
        InputError, match=r"--accumulate 2: makes a global batch of 256, .* with 192, .*drop it with --resume"
    ):
        continued(saved, {"accumulate": 2}, 4)


@pytest.mark.parametrize(
    ("saved", "given", "length"),
    [
        ({"epochs": 2}, {}, (2, None)),
        ({"epochs": 2}, {"epochs": 4}, (4, None)),
        ({"epochs": 2}, {"steps": 50}, (None, 50)),
        ({"steps": 50}, {"epochs": 4}, (4, None)),
    ],
)
def test_a_resumed_run_may_be_longer(
    saved: dict[str, Any], given: dict[str, Any], length: tuple[int | None, int | None]
) -> None:
    config = continued(resolve(Config(**saved), 1), given, 1)
    assert (config.epochs, config.steps) == length
    validate(config)


@pytest.mark.parametrize(
    "name",
    [
        "max_time",
        "hang_timeout",
        "inject",
        "check_every",
        "heal",
        "elastic",
        "record",
        "transport",
        "ranks",
        "backend",
        "replay",
        "share_gpu",
        "shard_optimizer",
        "overlap",
        "tensor",
        "pipeline",
        "stages",
    ],
)
def test_how_a_start_went_is_not_how_the_next_one_goes(name: str) -> None:
    this_start = {"max_time": 5.0, "transport": "threads", "ranks": 4, "backend": "numpy", "replay": "persistent"}
    saved = resolve(
        Config(
            **this_start,
            shard_optimizer="off",
            overlap="off",
            hang_timeout=5.0,
            inject="die@0:1",
            check_every=5,
            heal=True,
            elastic=True,
            record=True,
        ),
        4,
    )
    config = continued(saved, {}, 1)
    validate(config)
    assert getattr(config, name) == OPTIONS[name].default
