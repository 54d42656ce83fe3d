"""What launch/kubernetes.yaml must obey: Kubernetes' published schemas, and an MPIJob's fields (v2beta1, mpi-operator 0.6)."""

from typing import Any

import jsonschema
import kubernetes_validate

Schema = dict[str, Any]
Document = dict[str, Any]

KUBERNETES = "1.31"
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
