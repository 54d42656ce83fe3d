"""launch/kubernetes.yaml, against Kubernetes' published schemas, and the fields of an MPIJob v2beta1 (mpi-operator 0.6)."""

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
VERSION = "1.31"
JOB = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "kubeflow.org/v2beta1"},
        "kind": {"const": "MPIJob"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["mpiReplicaSpecs"],
            "properties": {
                "launcherCreationPolicy": {"enum": ["AtStartup", "WaitForWorkersReady"]},
                "mpiImplementation": {"enum": ["OpenMPI", "Intel", "MPICH"]},
                "runLauncherAsWorker": {"type": "boolean"},
                "slotsPerWorker": {"type": "integer"},
                "sshAuthMountPath": {"type": "string"},
                "runPolicy": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "activeDeadlineSeconds": {"type": "integer"},
                        "backoffLimit": {"type": "integer"},
                        "cleanPodPolicy": {"enum": ["None", "Running", "All"]},
                        "managedBy": {"type": "string"},
                        "schedulingPolicy": {"type": "object"},
                        "suspend": {"type": "boolean"},
                        "ttlSecondsAfterFinished": {"type": "integer"},
                    },
                },
                "mpiReplicaSpecs": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["Launcher", "Worker"],
                    "properties": {
                        name: {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["replicas", "restartPolicy", "template"],
                            "properties": {
                                "replicas": {"type": "integer"},
                                "restartPolicy": {"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
                                "template": {"type": "object"},
                            },
                        }
                        for name in ("Launcher", "Worker")
                    },
                },
            },
        },
    },
}
"""Fields, types and values as the operator's API names them; the pods' templates are Kubernetes' own."""


@pytest.fixture
def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "launch" / "kubernetes.yaml").read_text()))


def check(documents: list[dict[str, Any]]) -> None:
    """ValidationError: a field that is none, or of a wrong type."""
    storage, job = documents
    kubernetes_validate.validate(storage, VERSION, strict=True)
    jsonschema.validate(job, JOB)
    for replica in job["spec"]["mpiReplicaSpecs"].values():
        template = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": "any"},
            "template": replica["template"],
        }
        kubernetes_validate.validate(template, VERSION, strict=True)


def test_the_file_obeys_the_schemas(documents: list[dict[str, Any]]) -> None:
    check(documents)


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ((), "slots", 2),
        ((), "slotsPerWorker", "two"),
        ((), "launcherCreationPolicy", "Whenever"),
        (("runPolicy",), "cleanPodPolicy", "Sometimes"),
        (("mpiReplicaSpecs", "Worker"), "replicas", None),
        (("mpiReplicaSpecs", "Worker", "template", "spec"), "container", []),
        (("mpiReplicaSpecs", "Launcher", "template", "spec"), "terminationGracePeriodSeconds", "long"),
    ],
)
def test_a_wrong_field_is_found(path: tuple[str, ...], name: str, value: Any, documents: list[dict[str, Any]]) -> None:
    """The check is no stub."""
    place = documents[1]["spec"]
    for key in path:
        place = place[key]
    place[name] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
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
