"""The library: examples that run, names that do not shadow each other, values from NumPy, refusals in one line."""

import doctest
import gc
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import ddpgd
from ddpgd.api import own_loop, results, runs
from ddpgd.config import schema
from ddpgd.config.schema import OPTIONS
from ddpgd.run import summary

ROOT = Path(__file__).parents[2]
TINY = {"data": "synthetic", "hidden": (8,), "quiet": True}

pytest.importorskip("mpi4py", reason="ddpgd.exchange takes an mpi4py communicator")


def python(code, cwd, **environment):
    """Run code in another process, without a launcher's variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMIX_", "PMI_"))}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("module", [runs, results, own_loop, schema, summary], ids=lambda module: module.__name__)
def test_examples_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(module, raise_on_error=False)
    assert found.failed == 0
    assert not list(tmp_path.iterdir())


def test_public_functions_have_examples():
    found = [test for module in (runs, results, own_loop) for test in doctest.DocTestFinder().find(module)]
    shown = {test.name.rpartition(".")[2] for test in found if test.examples}
    assert shown >= {"train", "evaluate", "predict", "read_history", "read_summary", "load_params", "exchange"}


@pytest.mark.parametrize("name", ddpgd.__all__)
def test_public_names_have_docs(name):
    value = getattr(ddpgd, name)
    assert name == "__version__" or len(value.__doc__) > 40


def test_import_is_light(tmp_path):
    heavy = ("mpi4py", "cupy", "rich", "pooch", "safetensors", "PIL", "matplotlib", "importlib.metadata")
    code = f"import sys, ddpgd; print([name for name in {heavy} if name in sys.modules])"
    assert python(code, tmp_path, PYTHONPATH=str(ROOT)).stdout == "[]\n"


def test_training_needs_no_mpi4py(tmp_path):
    code = (
        "import sys; sys.modules['mpi4py'] = sys.modules['cupy'] = None\n"
        "import ddpgd; ddpgd.train(ddpgd.Config(data='synthetic', hidden=(8,), steps=2, run_dir='r'))"
    )
    done = python(code, tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr


def test_user_without_home_or_name(tmp_path):
    """As in containers that run with any user's number."""
    code = (
        "import os, pwd\n"
        "def getpwuid(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = getpwuid; os.environ.pop('HOME', None)\n"
        "import ddpgd; print(ddpgd.train(ddpgd.Config(data='synthetic', hidden=(8,), steps=2, run_dir='r'))['steps'])\n"
        "from ddpgd.cli.main import main; main(['evaluate', 'r']); main(['doctor', '--data', 'synthetic'])\n"
        "main(['data'])"
    )
    done = python(code, tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_functions_and_packages_do_not_shadow_each_other():
    import ddpgd.data
    import ddpgd.run
    import ddpgd.training.trainer

    assert callable(ddpgd.train)
    assert ddpgd.training.trainer.Trainer
    packages = {path.stem for path in (ROOT / "ddpgd").iterdir()}
    assert packages.isdisjoint(ddpgd.__all__)


def test_a_folder_named_ddpgd_beside_a_script_does_not_hide_the_package(tmp_path):
    """Editable installs must be a path: setuptools then writes a .pth file, and a package there wins over a bare folder."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["tool"]["setuptools"]["package-dir"] == {"": "."}
    clone, site = tmp_path / "ddpgd", tmp_path / "site"
    clone.mkdir()
    site.mkdir()
    (site / "editable.pth").write_text(f"{ROOT}\n")
    (tmp_path / "script.py").write_text(
        f"import site; site.addsitedir({str(site)!r})\nimport ddpgd; print(ddpgd.train)"
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "<function train" in done.stdout, done.stderr


def test_config_is_keyword_only():
    with pytest.raises(TypeError):
        ddpgd.Config("synthetic")


def test_literals_are_the_choices():
    hints = get_type_hints(ddpgd.Config)
    literals = {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}
    choices = {name: option.metadata["choices"] for name, option in OPTIONS.items() if option.metadata["choices"]}
    assert {name: choices[name] for name in literals} == literals
    from_tables = {
        "optimizer",
        "schedule",
        "activation",
        "init",
        "loss",
        "wire",
        "server_optimizer",
        "augment",
    }  # a new row must need no new type
    assert choices.keys() - literals.keys() <= from_tables


def test_every_field_is_in_the_help():
    assert all(f"        {option.name} (" in ddpgd.Config.__doc__ for option in fields(ddpgd.Config))


def test_summary_has_the_documented_fields(tmp_path):
    found = ddpgd.train(ddpgd.Config(**TINY, steps=3, run_dir=str(tmp_path / "run")))
    assert found.keys() == ddpgd.Summary.__annotations__.keys()
    assert all(f"        {name}: " in ddpgd.Summary.__doc__ for name in found)
    assert found["run_dir"] == str(tmp_path / "run")
    evaluated = ddpgd.evaluate(found["run_dir"])
    assert evaluated.keys() == ddpgd.Evaluation.__annotations__.keys()
    assert evaluated["test_loss_mean"] == found["test_loss_mean"]


def test_values_from_numpy(tmp_path):
    config = ddpgd.Config(
        data="synthetic",
        hidden=np.array([8]),
        steps=np.int32(3),
        micro_batch=np.int64(32),
        lr=np.float32(0.5),
        quiet=np.True_,
        run_dir=tmp_path / "run",
    )
    assert ddpgd.train(config)["steps"] == 3
    for bad in (np.float64(3), np.int64(-3), "three", True, np.array([3])):
        with pytest.raises(ddpgd.InputError):
            ddpgd.train(ddpgd.Config(**TINY, steps=bad))


def test_the_callers_error_handling_does_not_end_training(tmp_path):
    config = {**TINY, "steps": 60, "lr": 1e-30, "weight_decay": 0.0}
    kept = np.geterr()
    with np.errstate(all="raise"):
        raising = ddpgd.train(ddpgd.Config(**config, run_dir=str(tmp_path / "raising")))
        assert ddpgd.evaluate(raising["run_dir"])["step"] == 60
    assert np.geterr() == kept
    assert raising["params_sha256"] == ddpgd.train(ddpgd.Config(**config, run_dir=str(tmp_path / "b")))["params_sha256"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 8, "wire": "topk"},
        {"size": 8, "wire": "float32x"},
        {"size": 8, "reduce": "slow"},
        {"size": -1},
        {"size": 2.0},
        {"size": True},
        {"size": 8, "wire": "float16", "reduce": "fast"},
        {"size": 8, "wire": ["int8"]},
    ],
)
def test_exchange_refuses_in_one_line(arguments):
    from mpi4py import MPI

    with pytest.raises(ddpgd.InputError) as refusal:
        ddpgd.exchange(MPI.COMM_SELF, **arguments)
    assert "\n" not in str(refusal.value)


def test_exchanges_that_are_closed_leave_no_communicators():
    """An MPI library has a limited number of them: 5,000 would end the process."""
    from mpi4py import MPI

    for _ in range(5000):
        ddpgd.exchange(MPI.COMM_SELF, np.int64(4)).close()


@pytest.mark.parametrize(
    "images", [np.zeros((2, 28, 27), np.uint8), np.zeros((2, 28, 28)), np.zeros((0, 28, 28), "u1")]
)
def test_predict_refuses_other_images(images, tmp_path):
    run_dir = ddpgd.train(ddpgd.Config(**TINY, steps=1, run_dir=str(tmp_path / "run")))["run_dir"]
    with pytest.raises(ddpgd.InputError, match=r"uint8 \(B, 28, 28\)"):
        ddpgd.predict(run_dir, images)


def test_nothing_of_a_run_stays_in_memory(tmp_path):
    """Many trainings in one process, as in a search over learning rates, must not hold each other's data."""

    def held():
        return [found for found in gc.get_objects() if type(found).__name__ in ("Run", "Step", "Dataset")]

    gc.collect()
    before = len(held())  # samples that other tests share
    ddpgd.train(ddpgd.Config(**TINY, steps=2, run_dir=str(tmp_path / "run")))
    assert len(held()) == before
