"""launch/kubernetes.yaml obeys Kubernetes' schemas and the operator's, and names what is there."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from mpijob import INVALID, JOB, Document, check, published

ROOT = Path(__file__).parents[2]
OPERATOR = "https://raw.githubusercontent.com/kubeflow/mpi-operator/v0.6.0/manifests/base/kubeflow.org_mpijobs.yaml"
WRONG = [
    ((), "slots", 2),
    ((), "slotsPerWorker", "two"),
    ((), "launcherCreationPolicy", "Whenever"),
    (("runPolicy",), "cleanPodPolicy", "Sometimes"),
    (("mpiReplicaSpecs", "Worker"), "replicas", None),
    (("mpiReplicaSpecs", "Worker", "template", "spec"), "container", []),
    (("mpiReplicaSpecs", "Launcher", "template", "spec"), "terminationGracePeriodSeconds", "long"),
]


@pytest.fixture
def documents() -> list[Document]:
    return list(yaml.safe_load_all((ROOT / "launch" / "kubernetes.yaml").read_text()))


def spoil(document: Document, path: tuple[str, ...], name: str, value: object) -> None:
    place = document["spec"]
    for key in path:
        place = place[key]
    place[name] = value


def test_the_file_obeys_the_schemas(documents: list[Document]) -> None:
    for document in documents:
        check(document)


@pytest.mark.parametrize(("path", "name", "value"), WRONG)
def test_a_wrong_field_is_found(path: tuple[str, ...], name: str, value: object, documents: list[Document]) -> None:
    """The check is no stub."""
    spoil(documents[1], path, name, value)
    with pytest.raises(INVALID):
        check(documents[1])


@pytest.mark.parametrize(("path", "name", "value"), [*WRONG[:2], WRONG[4]])
def test_a_definition_is_applied_as_a_server_does(
    path: tuple[str, ...], name: str, value: object, documents: list[Document]
) -> None:
    """One with few fields, and none forbidden in so many words."""
    count = {"type": "integer"}
    spec = {
        "slotsPerWorker": count,
        "sshAuthMountPath": {"type": "string"},
        "launcherCreationPolicy": {"type": "string"},
        "runPolicy": {"properties": {"cleanPodPolicy": {"type": "string"}, "backoffLimit": count}},
        "mpiReplicaSpecs": {
            "additionalProperties": {
                "properties": {"replicas": count, "restartPolicy": {"type": "string"}, "template": {"type": "object"}}
            }
        },
    }
    job = {name: {} for name in ("apiVersion", "kind", "metadata")} | {"spec": {"properties": spec}}
    version = {"name": "v2beta1", "schema": {"openAPIV3Schema": {"properties": job}}}
    schema = published({"spec": {"versions": [version]}})
    check(documents[1], schema)
    spoil(documents[1], path, name, value)
    with pytest.raises(INVALID):
        check(documents[1], schema)


def test_the_file_obeys_what_the_operator_publishes(documents: list[Document]) -> None:
    """Its definition itself, and all that the schema here allows is in it."""
    try:
        with urllib.request.urlopen(OPERATOR, timeout=10) as answer:
            schema = published(yaml.safe_load(answer.read()))
    except (urllib.error.URLError, TimeoutError) as error:
        if getattr(error, "code", None) == 404:
            raise
        pytest.skip(f"no way to the operator's repository: {error}")
    check(documents[1], schema)
    here, there = (one["properties"]["spec"]["properties"] for one in (JOB, schema))
    assert set(here) <= set(there)
    assert set(here["runPolicy"]["properties"]) <= set(there["runPolicy"]["properties"])


def test_it_names_what_is_there(documents: list[Document]) -> None:
    """The launcher's command is one of ours; launcher and workers share the volume that holds the run."""
    replicas = documents[1]["spec"]["mpiReplicaSpecs"]
    launcher, worker = (replicas[name]["template"]["spec"] for name in ("Launcher", "Worker"))
    assert (ROOT / launcher["containers"][0]["command"][0]).exists()
    folder = launcher["containers"][0]["volumeMounts"][0]["mountPath"]
    variables = {one["name"]: one["value"] for one in launcher["containers"][0]["env"]}
    assert variables["RUN"].startswith(folder)
    claims = {spec["volumes"][0]["persistentVolumeClaim"]["claimName"] for spec in (launcher, worker)}
    assert claims == {documents[0]["metadata"]["name"]}
