"""Rules for launch/kubernetes.yaml: Kubernetes' published schemas, and an MPIJob's fields (v2beta1, mpi-operator 0.6)."""

from typing import Any

import jsonschema
import kubernetes_validate

Schema = dict[str, Any]
Document = dict[str, Any]

KUBERNETES = "1.31"


def _closed(properties: Schema, required: tuple[str, ...] = ()) -> Schema:
    """An object that has no other fields."""
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


COUNT, TEXT, FLAG, ANY = ({"type": name} for name in ("integer", "string", "boolean", "object"))
REPLICA = _closed(
    {"replicas": COUNT, "restartPolicy": {"enum": ["Always", "OnFailure", "Never", "ExitCode"]}, "template": ANY},
    ("replicas", "restartPolicy", "template"),
)
RUN_POLICY = _closed(
    {
        "activeDeadlineSeconds": COUNT,
        "backoffLimit": COUNT,
        "cleanPodPolicy": {"enum": ["None", "Running", "All"]},
        "managedBy": TEXT,
        "schedulingPolicy": ANY,
        "suspend": FLAG,
        "ttlSecondsAfterFinished": COUNT,
    }
)
SPEC = _closed(
    {
        "launcherCreationPolicy": {"enum": ["AtStartup", "WaitForWorkersReady"]},
        "mpiImplementation": {"enum": ["OpenMPI", "Intel", "MPICH"]},
        "mpiReplicaSpecs": _closed({"Launcher": REPLICA, "Worker": REPLICA}, ("Launcher", "Worker")),
        "runLauncherAsWorker": FLAG,
        "runPolicy": RUN_POLICY,
        "slotsPerWorker": COUNT,
        "sshAuthMountPath": TEXT,
    },
    ("mpiReplicaSpecs",),
)
JOB = _closed(
    {"apiVersion": {"const": "kubeflow.org/v2beta1"}, "kind": {"const": "MPIJob"}, "metadata": ANY, "spec": SPEC},
    ("apiVersion", "kind", "metadata", "spec"),
)
"""Fields, types and values as the operator's API names them; the pods' templates are Kubernetes' own."""

INVALID = (jsonschema.ValidationError, kubernetes_validate.ValidationError)


def check(document: Document, job: Schema = JOB) -> None:
    """One of `INVALID`: a field that is none, or of a wrong type."""
    if document["kind"] != "MPIJob":
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    jsonschema.validate(document, job)
    for replica in document["spec"]["mpiReplicaSpecs"].values():
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "any"}, "template": replica["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def published(definition: Document) -> Schema:
    """The schema in an operator's CustomResourceDefinition, as an API server applies it: fields it does not name are none."""
    version = next(one for one in definition["spec"]["versions"] if one["name"] == "v2beta1")
    schema: Schema = _strict(version["schema"]["openAPIV3Schema"])
    return schema


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: _strict(one) for name, one in schema.items()}
    is_closed = isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema
    return inner | ({"additionalProperties": False} if is_closed else {})
