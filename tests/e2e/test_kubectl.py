"""The documents' kubectl commands, against a server that answers as that of a cluster with the MPI Operator would."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from documents import for_clusters

from mpijob import INVALID, check

pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl on PATH")

KINDS = {
    "api/v1": ("PersistentVolumeClaim", "persistentvolumeclaims"),
    "apis/kubeflow.org/v2beta1": ("MPIJob", "mpijobs"),
}
"""What the server knows: path of a group's version, kind, resource."""


class Server(ThreadingHTTPServer):
    """`given`: the documents that it has accepted."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.given: list[dict[str, Any]] = []


class Answers(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        """The server's resources; of documents, none yet."""
        path = self.path.partition("?")[0].removeprefix("/")
        found = DISCOVERY.get(path)
        self._answer(200 if found else 404, found or failure("NotFound", path))

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        document["metadata"].pop("annotations", None)  # kubectl's own
        try:
            check(document)
        except INVALID as error:
            self._answer(422, failure("Invalid", error.message))
            return
        self.server.given.append(document)
        self._answer(201, document)

    def _answer(self, code: int, found: dict[str, Any]) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_words: object) -> None:
        """Silent."""


def failure(reason: str, message: str) -> dict[str, Any]:
    code = {"NotFound": 404, "Invalid": 422}[reason]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }


def resources(path: str) -> dict[str, Any]:
    kind, name = KINDS[path]
    own = {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["create", "get", "patch"]}
    return {"kind": "APIResourceList", "groupVersion": path.partition("/")[2], "resources": [own]}


def openapi(path: str) -> dict[str, Any]:
    """It says that the server itself refuses fields that are none."""
    kind, name = KINDS[path]
    group, _, version = path.partition("/")[2].rpartition("/")
    patch = {
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
        "responses": {"200": {"description": "done"}},
    }
    return {"openapi": "3.0.0", "info": {"title": path, "version": "1"}, "paths": {f"/{path}/{name}": {"patch": patch}}}


VERSION = {"groupVersion": "kubeflow.org/v2beta1", "version": "v2beta1"}
GROUP = {"name": "kubeflow.org", "versions": [VERSION], "preferredVersion": VERSION}
DISCOVERY = {
    "version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
    "api": {"kind": "APIVersions", "versions": ["v1"]},
    "apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [GROUP]},
    "openapi/v3": {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in KINDS}},
    **{path: resources(path) for path in KINDS},
    **{f"openapi/v3/{path}": openapi(path) for path in KINDS},
}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def kubectl(script: str, server: Server, home: Path) -> subprocess.CompletedProcess[str]:
    """The script's kubectl talks to that server, and to no cluster that this user may have."""
    (home / "config").write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "current-context": "test",
                "users": [{"name": "test", "user": {}}],
            }
        )
    )
    environment = os.environ | {"HOME": str(home), "KUBECONFIG": str(home / "config")}
    command = ["bash", "-euc", script]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_what_the_documents_show(server: Server, tmp_path: Path) -> None:
    done = kubectl(for_clusters("kubectl", instead={}), server, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [document["kind"] for document in server.given] == ["PersistentVolumeClaim", "MPIJob"]


def test_a_wrong_field_is_refused(server: Server, tmp_path: Path) -> None:
    """The server is no stub."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((ROOT / "launch" / "kubernetes.yaml").read_text().replace("slotsPerWorker", "slots"))
    done = kubectl(f"kubectl apply -f {wrong}", server, tmp_path)
    assert done.returncode == 1
    assert "slots" in done.stderr
    assert len(server.given) == 1
