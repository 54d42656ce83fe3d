"""Wrong input: one clear line, exit code 2, no traceback, no hang, nothing lost; on one rank, and a sample on two."""

import gzip
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DDPGD, MPIRUN, PYTHON, call_ddpgd, run_ddpgd, under_mpirun
from PIL import Image

from runs import write_idx

SYNTHETIC = ("--data", "synthetic", "--steps", "3")

SAMPLE = {
    *("unknown flag", "no command", "NaN", "fast and lossy", "no CuPy, or no GPU", "configuration not TOML"),
    *("no such sweep", "sweep over another folder", "sweep of ragged groups", "sweep of data that are not there"),
    *("data truncated", "label 10", "run folder taken", "another network", "checkpoint altered", "not a run folder"),
}

TABLE: list[tuple[str, tuple[str, ...], str]] = [
    ("unknown flag", ("train", "--learning-rate", "1"), "--learning-rate: ddpgd train has no such argument"),
    ("flag almost right", ("train", "--hiden", "5"), "did you mean --hidden?"),
    ("unknown command", ("trian",), "'trian'"),
    ("no command", (), "type a command"),
    (
        "flag of runs that are measured",
        ("scaling", "--out", "new", "--", "--hiden", "4"),
        "--hiden: ddpgd train has no such",
    ),
    ("stray word", ("train", "fast"), "fast: ddpgd train has no such argument"),
    ("flag without its value", ("train", "--lr"), "--lr"),
    ("not a number", ("train", "--lr", "quick"), "--lr: 'quick' is not a finite number"),
    ("not a whole number", ("train", "--steps", "1.5"), "--steps: '1.5' is not a whole number"),
    ("NaN", ("train", "--lr", "nan"), "--lr: 'nan' is not a finite number"),
    ("learning rate 0", ("train", "--lr", "0"), "--lr 0.0: must be above 0"),
    ("negative learning rate", ("train", "--lr=-0.1"), "--lr -0.1: must be above 0"),
    ("no epochs", ("train", "--epochs", "0"), "--epochs 0: must be at least 1"),
    ("negative seed", ("train", "--seed=-1"), "--seed -1: must be 0 to 2^64 - 1"),
    ("empty batch", ("train", "--global-batch", "0"), "--global-batch 0: must be 1 to"),
    ("empty micro-batch", ("train", "--micro-batch", "0"), "--micro-batch 0: must be 1 to"),
    ("momentum 1", ("train", "--momentum", "1"), "--momentum 1.0: must be at least 0 and below 1"),
    ("smoothing 1", ("train", "--label-smoothing", "1"), "--label-smoothing 1.0: must be at least 0 and below 1"),
    ("smoothing of errors", ("train", "--loss", "mse", "--label-smoothing", "0.1"), "is for --loss cross-entropy"),
    ("everything dropped", ("train", "--dropout", "1"), "--dropout 1.0: must be at least 0 and below 1"),
    ("negative dropout", ("train", "--input-dropout=-0.1"), "--input-dropout -0.1: must be at least 0"),
    ("no pixels", ("train", "--input-pool", "0"), "--input-pool 0: must be 1 to 256"),
    (
        "squares that do not fit",
        ("train", "--data", "synthetic", "--input-pool", "3"),
        "28x28 pixels cannot be cut into such squares; sides that fit are 1, 2, 4, 7, 14, 28",
    ),
    (
        "pooled pictures of nothing",
        ("data", "--data", "synthetic", "--input-pool", "2"),
        "--input-pool is for --augment",
    ),
    ("nothing to drop", ("train", "--hidden", "0", "--dropout", "0.5"), "--dropout has no effect: --hidden 0"),
    ("negative norm", ("train", "--max-norm=-1"), "--max-norm -1.0: must be at least 0"),
    ("negative decay", ("train", "--weight-decay=-1"), "--weight-decay -1.0: must be at least 0"),
    ("negative clip", ("train", "--clip-norm=-1"), "--clip-norm -1.0: must be at least 0"),
    ("patience without validation", ("train", "--patience", "3"), "type --validation 5000 as well"),
    (
        "validation samples of all",
        ("train", "--data", "synthetic", "--validation", "6000"),
        "6,000 training samples in all; type 600 or less",
    ),
    ("two rises", ("train", "--schedule", "one-cycle", "--warmup", "9"), "drop it, or type --rise-fraction 0.3"),
    ("a cycle of momentum of a wire", ("train", "--schedule", "one-cycle", "--wire", "topk"), "type --optimizer sgd"),
    (
        "a cycle upside down",
        ("train", "--schedule", "one-cycle", "--min-momentum", "0.99"),
        "--min-momentum 0.99 is more than --max-momentum 0.95",
    ),
    ("a cycle that is none", ("train", "--div-factor", "9"), "--div-factor is for --schedule one-cycle"),
    ("a plateau of test samples", ("train", "--schedule", "reduce-on-plateau"), "type --validation 5000 as well"),
    ("negative bound", ("train", "--clip-value=-1"), "--clip-value -1.0: must be at least 0"),
    ("clipped twice", ("train", "--clip-value", "1", "--clip-norm", "1"), "--clip-value and --clip-norm both bound"),
    ("elements of matrices", ("train", "--clip-value", "1", "--optimizer", "muon"), "orthogonalises whole matrices"),
    ("elements of a momentum", ("train", "--clip-value", "1", "--wire", "topk"), "type --clip-norm 1"),
    ("accuracy in percent", ("train", "--until-accuracy", "98"), "at most 1, as in 0.98"),
    ("no time", ("train", "--max-time", "0"), "--max-time 0.0: must be above 0 seconds"),
    ("records too often", ("train", "--log-every", "0"), "--log-every 0: must be at least 1"),
    ("checkpoints too often", ("train", "--checkpoint-every", "0"), "--checkpoint-every 0: must be at least 1"),
    ("evaluations too often", ("train", "--evaluate-every", "0"), "--evaluate-every 0: must be at least 1"),
    ("widths not numbers", ("train", "--hidden", "512,wide"), "--hidden: 'wide' is not whole numbers joined by commas"),
    ("a width of 0", ("train", "--hidden", "512,0"), "--hidden 512,0: each width must be"),
    ("unknown optimizer", ("train", "--optimizer", "adm"), "did you mean adam?"),
    ("muon without matrices", ("descend", "bowl", "--optimizer", "muon"), "type --optimizer adamw, its companion"),
    (
        "muon of sparse sums",
        ("train", "--optimizer", "muon", "--wire", "topk"),
        "--optimizer muon: --wire topk takes over",
    ),
    (
        "muon on a server",
        ("train", "--sync", "federated", "--server-optimizer", "muon"),
        "'muon' is not known; type one of",
    ),
    ("unknown schedule", ("train", "--schedule", "cosin"), "did you mean cosine?"),
    ("unknown activation", ("train", "--activation", "gelu"), "type one of relu, tanh, sigmoid"),
    ("unknown backend", ("train", "--backend", "cuda"), "--backend: 'cuda' is not known"),
    ("unknown transport", ("train", "--transport", "ncl"), "--transport: 'ncl' is not known"),
    ("NCCL without GPUs", ("train", *SYNTHETIC, "--transport", "nccl"), "--transport nccl: it moves arrays of GPUs"),
    ("unknown wire", ("train", "--wire", "float8"), "--wire: 'float8' is not known"),
    ("fast and lossy", ("train", "--wire", "float16", "--reduce", "fast"), "type --reduce ordered"),
    ("nothing to feed back", ("train", "--error-feedback"), "type --wire float16"),
    ("unknown augmentation", ("train", "--augment", "afine"), "did you mean affine?"),
    (
        "rotation of nothing",
        ("train", "--rotate", "5"),
        "--rotate is for --augment affine or elastic; type that as well",
    ),
    (
        "elastic affine",
        ("train", "--augment", "affine", "--elastic-alpha", "9"),
        "--elastic-alpha is for --augment elastic",
    ),
    ("negative shift", ("train", "--augment", "affine", "--shift=-1"), "--shift -1.0: must be 0 to 1000 pixels"),
    ("scale of 1", ("train", "--augment", "affine", "--scale", "1"), "--scale 1.0: must be 0 to 0.9, as in 0.1 for"),
    ("upright shear", ("train", "--augment", "affine", "--shear", "90"), "--shear 90.0: must be 0 to 80 degrees"),
    ("no smoothing", ("train", "--augment", "elastic", "--elastic-sigma", "0"), "--elastic-sigma 0.0: must be 0.1 to"),
    ("other augmentation", ("train", "--resume", "run", "--augment", "affine"), "was trained with none"),
    ("density without topk", ("train", "--topk-density", "0.1"), "--topk-density is for --wire topk"),
    ("local steps every step", ("train", "--local-steps", "16"), "--local-steps is for --sync local"),
    ("unknown sync", ("train", "--sync", "sometimes"), "--sync: 'sometimes' is not known"),
    ("no CuPy, or no GPU", ("train", *SYNTHETIC, "--backend", "cupy"), "--backend cupy: CuPy "),
    ("float16 without a GPU", ("train", *SYNTHETIC, "--precision", "float16"), "--precision float16 needs a GPU, and"),
    ("unknown precision", ("train", "--precision", "float8"), "--precision: 'float8' is not known"),
    ("bad scale rule", ("train", "--scale-lr", "cubic:256"), "type linear:BASE_BATCH or sqrt:BASE_BATCH"),
    ("scale rule without base", ("train", "--scale-lr", "linear"), "type linear:BASE_BATCH"),
    ("epochs and steps", ("train", "--epochs", "1", "--steps", "9"), "--epochs and --steps say the same in two ways"),
    ("batch twice", ("train", "--global-batch", "64", "--accumulate", "2"), "--global-batch and --accumulate say the"),
    ("micro above global", ("train", "--global-batch", "32", "--micro-batch", "64"), "type --micro-batch 32 or less"),
    ("warm-up too long", ("train", *SYNTHETIC, "--warmup", "3"), "type --warmup 2 or less"),
    ("ranks without threads", ("train", "--ranks", "2"), "type --transport threads"),
    ("threads without ranks", ("train", "--transport", "threads"), "type for example --ranks 4"),
    ("no such configuration", ("train", "--config", "none.toml"), "none.toml: cannot read it"),
    ("configuration not TOML", ("train", "--config", "broken.toml"), "broken.toml: not TOML"),
    ("unknown option in TOML", ("train", "--config", "unknown.toml"), "did you mean momentum?"),
    ("wrong type in TOML", ("train", "--config", "type.toml"), "type.toml: epochs: 'two' is not a whole number"),
    ("no such data folder", ("train", "--data", "nowhere"), "nowhere: there is no such folder"),
    ("data folder is a file", ("train", "--data", "broken.toml"), "broken.toml: is not a folder"),
    ("grid of none", ("doctor", "--tensor", "0"), "--tensor 0: must be"),
    ("noise beyond all", ("train", "--sync", "federated", "--dp-noise", "1e30"), "--dp-noise 1e+30: must be 0 to 1e6"),
    ("too many ranks", ("plan", "--ranks", "9999999"), "--ranks 9999999: must be at most 1,048,576"),
    (
        "two files with one name",
        ("descend", "bowl", "--csv", "a.png", "--out", "a.png"),
        "--out a.png: is the file of --csv",
    ),
    (
        "a file, and one that cannot be",
        ("descend", "bowl", "--csv", "a.csv", "--out", "no/a.png"),
        "there is no folder no",
    ),
    ("an expression like a flag", ("descend", "-x**2"), "type -- before it if it is no flag"),
    ("a value like a flag", ("descend", "bowl", "--from", "-1,2"), "a value that begins with - is typed as --from=-1"),
    ("graph of another kind", ("descend", "bowl", "--graph", "a.png"), "name a file as name.svg"),
    ("nobody to see it", ("train", *SYNTHETIC, "--inject", "hang@0:1"), "type sleep"),
    (
        "a fault after the end",
        ("train", *SYNTHETIC, "--steps", "10", "--inject", "slow@0:3,raise@0:10"),
        "the last STEP of this run at which something can happen is 9; type a smaller one",
    ),
    (
        "no link to drop",
        ("train", *SYNTHETIC, "--inject", "drop-link@0:1"),
        "drop-link is for ranks that exchange something",
    ),
    (
        "a fault within the last local steps",
        ("train", *SYNTHETIC, "--sync", "local", "--local-steps", "4", "--steps", "10", "--inject", "raise@0:9"),
        "the last STEP of this run at which something can happen is 8",
    ),
    ("a message of none", ("train", *SYNTHETIC, "--inject", "flip-message@0:1"), "--transport threads --ranks 2"),
    ("a page as a picture", ("report", "run", "--out", "page.png"), "name a file as name.html"),
    ("clients of no partition", ("data", "--augment", "affine", "--clients", "5"), "--clients is for --partition"),
    ("partition among none", ("data", "--partition", "iid", "--clients", "0"), "--clients 0: must be 1 to 2^20"),
    ("data missing", ("data", "--data", "empty"), "empty: no train-images-idx3-ubyte"),
    ("data truncated", ("train", "--data", "truncated"), "train-images-idx3-ubyte"),
    ("data not gzip", ("train", "--data", "notgzip"), "train-images-idx3-ubyte.gz"),
    ("labels for images", ("train", "--data", "mislabelled"), "train-images-idx3-ubyte"),
    ("label 10", ("train", "--data", "label10"), "train-labels-idx1-ubyte"),
    ("too few labels", ("train", "--data", "fewlabels"), "train-labels-idx1-ubyte"),
    ("images of two sizes", ("train", "--data", "twosizes"), "t10k-images-idx3-ubyte"),
    ("run folder is a file", ("train", *SYNTHETIC, "--run-dir", "broken.toml"), "--run-dir broken.toml: cannot write"),
    ("run folder below a file", ("train", *SYNTHETIC, "--run-dir", "broken.toml/run"), "cannot write there"),
    ("run folder not writable", ("train", *SYNTHETIC, "--run-dir", "/proc/run"), "--run-dir /proc/run: cannot write"),
    ("run folder taken", ("train", *SYNTHETIC, "--run-dir", "run"), "--run-dir run: holds a run already"),
    ("resume from nothing", ("train", "--resume", "none"), "none: there is no such checkpoint"),
    ("resume without a run", ("train", "--resume"), "type --run-dir FOLDER --resume"),
    ("resume from an empty folder", ("train", "--resume", "empty"), "empty: holds no checkpoint; name another place"),
    ("another network", ("train", "--resume", "run", "--hidden", "32"), "the checkpoint was trained with 16"),
    ("another optimizer", ("train", "--resume", "run", "--optimizer", "adam"), "was trained with momentum"),
    ("another batch", ("train", "--resume", "run", "--global-batch", "64"), "was trained with 256"),
    ("accumulate on resume", ("train", "--resume", "run", "--accumulate", "2"), "drop it with --resume"),
    ("other data on resume", ("train", "--resume", "run", "--data", "tiny"), "tiny: not the data that"),
    ("checkpoint truncated", ("evaluate", "cut.safetensors"), "cut.safetensors: truncated or not a checkpoint"),
    ("checkpoint altered", ("train", "--resume", "altered.safetensors"), "altered since it was written"),
    ("checkpoint of other images", ("evaluate", "run", "--data", "tiny"), "images are not 28x28"),
    ("not an image", ("predict", "run", "broken.toml"), "broken.toml"),
    ("an empty image", ("predict", "run", "blank.png"), "blank.png"),
    ("no such sweep", ("sweep", "none.toml"), "none.toml: cannot read it"),
    ("sweep without a table", ("sweep", "type.toml"), "type.toml: has no table [sweep]"),
    ("sweep over another folder", ("sweep", "sweep.toml", "--out", "run"), "is there already, and no sweep"),
    ("sweep of no ranks", ("sweep", "sweep.toml", "--ranks-per-run", "0"), "--ranks-per-run 0: must be at least 1"),
    ("sweep of data that are not there", ("sweep", "nodata.toml"), "nowhere: there is no such folder"),
    ("sweep of ragged groups", ("sweep", "sweep.toml", "--ranks-per-run", "3"), "does not divide"),
    ("report of no run", ("report", "empty"), "empty: not a run folder"),
    (
        "report over another file",
        ("report", "run", "--out", "broken.toml"),
        "is there already, and not a page of ddpgd",
    ),
    ("plot over another file", ("plot", "run", "--out", "sweep.toml"), "not a picture of ddpgd"),
    (
        "range test over a sweep",
        ("lr-find", "--csv", "sweep.toml"),
        "is there already, and not the CSV of a range test",
    ),
    ("curve of a descent over a sweep", ("descend", "bowl", "--csv", "sweep.toml"), "not the CSV of a descent"),
    ("report of other images", ("report", "run", "--data", "tiny"), "images of another shape"),
    ("no folder of runs", ("runs", "nowhere"), "nowhere: no folder of runs: No such file"),
    ("unknown order of runs", ("runs", "--sort", "size"), "argument --sort: invalid choice: 'size'"),
    ("not a run folder", ("compare", "run", "empty"), "empty: not a run folder"),
]

LAUNCHED: list[tuple[str, tuple[str, ...], str]] = [
    ("threads under mpirun", ("train", *SYNTHETIC, "--transport", "threads", "--ranks", "2"), "mpirun started 2 ranks"),
    ("alone under mpirun", ("train", *SYNTHETIC, "--transport", "alone"), "mpirun started 2 ranks"),
    *(row for row in TABLE if row[0] in SAMPLE),
]
"""Rows for two ranks: what rank 0 finds while it parses, what each rank finds in its data, what rank 0 finds in files."""


def write_data(folder: Path, side: int = 4, test_side: int | None = None) -> Path:
    folder.mkdir()
    for name, count, size in (("train", 6, side), ("t10k", 4, test_side or side)):
        write_idx(folder / f"{name}-images-idx3-ubyte", np.full((count, size, size), 9))
        write_idx(folder / f"{name}-labels-idx1-ubyte", np.arange(count))
    return folder


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, small_run: Path) -> Path:
    """A folder with everything that the table speaks of."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "broken.toml").write_text("lr = = 1\n")
    (folder / "unknown.toml").write_text("momentun = 0.5\n")
    (folder / "type.toml").write_text('epochs = "two"\n')
    (folder / "sweep.toml").write_text("[sweep]\nlr = [0.1, 0.2]\n")
    (folder / "nodata.toml").write_text('data = "nowhere"\n[sweep]\nlr = [0.1, 0.2]\n')
    (folder / "empty").mkdir()
    write_data(folder / "tiny")
    images = write_data(folder / "truncated") / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-3])
    images = write_data(folder / "notgzip") / "train-images-idx3-ubyte"
    images.with_suffix(".gz").write_bytes(gzip.compress(images.read_bytes())[:-9])
    images.unlink()
    images = write_data(folder / "mislabelled") / "train-images-idx3-ubyte"
    shutil.copy(folder / "tiny" / "train-labels-idx1-ubyte", images)
    write_idx(write_data(folder / "label10") / "train-labels-idx1-ubyte", np.full(6, 10))
    write_idx(write_data(folder / "fewlabels") / "train-labels-idx1-ubyte", np.arange(5))
    write_data(folder / "twosizes", test_side=5)
    shutil.copytree(small_run, folder / "run", symlinks=True)
    content = (small_run / "checkpoints" / "latest").read_bytes()
    (folder / "cut.safetensors").write_bytes(content[: len(content) // 2])
    (folder / "altered.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    Image.new("L", (50, 50), 200).save(folder / "blank.png")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def check_one_line(stderr: str, wanted: str) -> None:
    ours = [line for line in stderr.splitlines() if line.startswith("ddpgd:")]
    assert len(ours) == 1, stderr
    assert wanted in ours[0]
    assert "Traceback" not in stderr


@pytest.fixture(scope="module")
def found(workshop: Path) -> dict[str, bytes]:
    return files(workshop)


@pytest.mark.parametrize(("arguments", "wanted"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_one_line_and_exit_code_2(
    workshop: Path, found: dict[str, bytes], arguments: tuple[str, ...], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workshop)
    done = call_ddpgd(*arguments)
    assert done.returncode == 2, done.stderr
    check_one_line(done.stderr, wanted)
    assert files(workshop) == found, "something was touched"


@pytest.fixture(scope="module")
def answered(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], dict[str, Any]]:
    """Answers of two ranks to each row of LAUNCHED, one after the other in the same processes."""
    folder = tmp_path_factory.mktemp("answers")
    rows = [row[1] for row in LAUNCHED]
    (folder / "rows.json").write_text(json.dumps(rows))
    worker = str(Path(__file__).with_name("wrong_input_worker.py"))
    command = under_mpirun(2, [*PYTHON, worker, str(folder / "rows.json"), str(folder / "found.json")])
    done = subprocess.run(command, cwd=workshop, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(rows, json.loads((folder / "found.json").read_text()), strict=True))


@pytest.mark.parametrize(("arguments", "wanted"), [row[1:] for row in LAUNCHED], ids=[row[0] for row in LAUNCHED])
def test_two_ranks_give_one_line(answered: dict[Any, Any], arguments: tuple[str, ...], wanted: str) -> None:
    answer = answered[arguments]
    # A command for one rank is left to rank 0, and rank 1 says so.
    assert answer["codes"] in ([2, 2], [2, 0]), answer["stderr"]
    lines = answer["stderr"].splitlines(keepends=True)
    check_one_line("".join(line for line in lines if "leaves `ddpgd " not in line), wanted)
    assert answer["unchanged"]


def test_mpirun_ends_with_that_code(workshop: Path) -> None:
    """Each of three ranks' finding about its data."""
    ((_, arguments, wanted),) = (row for row in TABLE if row[0] == "data truncated")
    done = run_ddpgd(3, *arguments, cwd=workshop)
    assert done.returncode == 2, done.stderr
    check_one_line(done.stderr, wanted)


def test_ranks_with_different_configurations(workshop: Path) -> None:
    program = [*DDPGD, "train", *SYNTHETIC, "--lr"]
    command = [*MPIRUN, "-n", "1", *program, "0.1", ":", "-n", "2", *program, "0.2"]
    done = subprocess.run(command, cwd=workshop, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if line.startswith("ddpgd:")]
    assert done.returncode == 2, done.stderr
    assert len(ours) == 1
    assert "rank 1 was started with" in ours[0]
    assert "start all ranks alike" in ours[0]


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 40
    assert len(LAUNCHED) == len(SAMPLE) + 2
