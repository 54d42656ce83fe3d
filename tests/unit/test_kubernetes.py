"""launch/kubernetes.yaml, against Kubernetes' published schemas, and the fields of an MPIJob v2beta1 (mpi-operator 0.6)."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
VERSION = "1.31"
SPEC = {"launcherCreationPolicy", "mpiImplementation", "mpiReplicaSpecs", "runLauncherAsWorker", "runPolicy", "slotsPerWorker",
        "sshAuthMountPath"}  # fmt: skip
RUN_POLICY = {"activeDeadlineSeconds", "backoffLimit", "cleanPodPolicy", "managedBy", "schedulingPolicy", "suspend",
              "ttlSecondsAfterFinished"}  # fmt: skip
REPLICA = {"replicas", "restartPolicy", "template"}


@pytest.fixture
def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "launch" / "kubernetes.yaml").read_text()))


def check(documents: list[dict[str, Any]]) -> None:
    """ValidationError, AssertionError: a field that is none, or of a wrong type."""
    storage, job = documents
    kubernetes_validate.validate(storage, VERSION, strict=True)
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    spec = job["spec"]
    assert spec.keys() <= SPEC
    assert spec["runPolicy"].keys() <= RUN_POLICY
    assert spec["mpiReplicaSpecs"].keys() == {"Launcher", "Worker"}
    for replica in spec["mpiReplicaSpecs"].values():
        assert replica.keys() == REPLICA
        assert replica["restartPolicy"] in {"Always", "OnFailure", "Never", "ExitCode"}
        template = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": "any"},
            "template": replica["template"],
        }
        kubernetes_validate.validate(template, VERSION, strict=True)


def test_the_file_obeys_the_schemas(documents: list[dict[str, Any]]) -> None:
    check(documents)


@pytest.mark.parametrize("wrong", ["slots", "comand", "replicas"])
def test_a_wrong_field_is_found(wrong: str, documents: list[dict[str, Any]]) -> None:
    """The check is no stub."""
    spec = documents[1]["spec"]
    if wrong == "slots":
        spec["slots"] = spec.pop("slotsPerWorker")
    elif wrong == "comand":
        container = spec["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
        container["comand"] = container.pop("command")
    else:
        del spec["mpiReplicaSpecs"]["Worker"]["replicas"]
    with pytest.raises((AssertionError, kubernetes_validate.ValidationError)):
        check(documents)


def test_it_names_what_is_there(documents: list[dict[str, Any]]) -> None:
    """The launcher's command is one of ours; launcher and workers share the volume that holds the run."""
    replicas = documents[1]["spec"]["mpiReplicaSpecs"]
    launcher, worker = (replicas[name]["template"]["spec"] for name in ("Launcher", "Worker"))
    assert (ROOT / launcher["containers"][0]["command"][0]).exists()
    folder = launcher["containers"][0]["volumeMounts"][0]["mountPath"]
    variables = {one["name"]: one["value"] for one in launcher["containers"][0]["env"]}
    assert variables["RUN"].startswith(folder)
    claims = {spec["volumes"][0]["persistentVolumeClaim"]["claimName"] for spec in (launcher, worker)}
    assert claims == {documents[0]["metadata"]["name"]}
