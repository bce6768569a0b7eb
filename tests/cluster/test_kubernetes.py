"""The manifests fit their schemas, and their commands and probes do as they say.

No image is built and no Kubernetes is here: what a container would run is run in this environment,
as it stands but for the paths of volumes, the name of the service and the ports.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dsoftmax import SoftmaxRegression, load_model
from dsoftmax.runtime.tls import write_certificates
from tests.cluster.slurm import free_port

FOLDER = Path(__file__).parent.parent.parent / "cluster/kubernetes"
FILES = ["plain.yaml", "operator.yaml", "job.yaml"]

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

pytestmark = pytest.mark.slow


def documents(name: str, change: Callable[[str], str] = str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(change((FOLDER / name).read_text())))


def of_kind(kind: str, name: str, change: Callable[[str], str] = str) -> list[dict[str, Any]]:
    return [document for document in documents(name, change) if document["kind"] == kind]


def pod_specs(name: str) -> Iterator[dict[str, Any]]:
    for document in documents(name):
        spec = document.get("spec", {})
        if document["kind"] == "DaskCluster":
            yield from (spec["scheduler"]["spec"], spec["worker"]["spec"])
        elif "template" in spec:
            yield spec["template"]["spec"]


@pytest.mark.parametrize("name", FILES)
def test_kubernetes_manifests_fit_the_strict_schema(name: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the extra dev")
    version = kubernetes_validate.latest_version()
    for document in documents(name):
        if document["kind"] != "DaskCluster":
            kubernetes_validate.validate(document, version, strict=True)
    for spec in pod_specs(name):  # those inside of a DaskCluster too
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}
        kubernetes_validate.validate(pod, version, strict=True)


def test_a_wrong_manifest_would_be_found() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the extra dev")
    job = of_kind("Job", "job.yaml", lambda text: text.replace("backoffLimit", "backOffLimit"))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job[0], kubernetes_validate.latest_version(), strict=True)


def test_the_cluster_fits_the_schema_of_the_operator() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="needs the extra dev")
    operator = pytest.importorskip("dask_kubernetes", reason="needs the extra dev")
    crd = Path(operator.__file__).parent / "operator/deployment/helm/dask-kubernetes-operator/crds"
    definition = yaml.safe_load((crd / "daskcluster.yaml").read_text())["spec"]
    (cluster,) = of_kind("DaskCluster", "operator.yaml")
    versions = {version["name"]: version for version in definition["versions"]}
    schema = versions[cluster["apiVersion"].partition("/")[2]]["schema"]["openAPIV3Schema"]
    jsonschema.validate(cluster, schema)
    assert cluster["apiVersion"].startswith(definition["group"])
    assert cluster["spec"].keys() <= schema["properties"]["spec"]["properties"].keys()
    baseline = _baseline()
    assert (
        cluster["spec"]["scheduler"]["service"]["selector"]
        == (baseline["scheduler"]["service"]["selector"])
    )
    del cluster["spec"]["worker"]["spec"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster, schema)


def _baseline() -> dict[str, Any]:
    from dask_kubernetes.operator import make_cluster_spec

    spec: dict[str, Any] = make_cluster_spec("dsoftmax")["spec"]
    return spec


@pytest.mark.parametrize("name", FILES)
def test_no_manifest_holds_a_secret_or_needs_root(name: str) -> None:
    for spec in pod_specs(name):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            assert container["resources"]["limits"]["memory"]
            given = {variable["name"] for variable in container["env"]}
            assert given <= {"DASK_CONFIG", "DASK_SCHEDULER_ADDRESS", "DASK_WORKER_NAME"}


def test_the_container_file_installs_what_the_commands_need() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    assert "has not" in text.partition("FROM")[0]
    assert re.search(r"pip install --no-cache-dir '/source\[s3\]'", text)


class Containers:
    """Runs the containers of a manifest as processes."""

    def __init__(self, change: Callable[[str], str], stack: ExitStack, log: Path) -> None:
        self._change, self._stack, self._log = change, stack, log

    def start(self, file: str, kind: str, container: str) -> tuple[dict[str, Any], Any]:
        found = [
            one
            for document in of_kind(kind, file, self._change)
            for part in self._specs(document)
            for one in part["containers"]
            if one["name"] == container
        ]
        environment = {**os.environ, "PATH": PATH} | {
            variable["name"]: variable.get("value", "from-the-pod") for variable in found[0]["env"]
        }
        command = [
            re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], part)
            for part in found[0]["command"]
        ]
        out = self._stack.enter_context((self._log / f"{container}.log").open("wb"))
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        self._stack.callback(_end, process)
        return found[0], process

    def _specs(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        spec = document["spec"]
        if "template" in spec:
            return [spec["template"]["spec"]]
        return [spec["scheduler"]["spec"], spec["worker"]["spec"]]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(30)


def alive(probe: dict[str, Any]) -> bool:
    done = subprocess.run(
        probe["exec"]["command"], capture_output=True, env={**os.environ, "PATH": PATH}
    )
    return done.returncode == 0


def wait_until_alive(probe: dict[str, Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not alive(probe):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("file", "kind"), [("plain.yaml", "Deployment"), ("operator.yaml", "DaskCluster")]
)
def test_commands_and_probes_run_as_they_stand(
    file: str,
    kind: str,
    tmp_path: Path,
    store: Callable[..., str],
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    X, y = digits
    data = store(rows=97, X=X, y=y)
    write_certificates(tmp_path / "certs")
    changes = {
        "/certs": f"{tmp_path}/certs",
        "/job/": f"{tmp_path}/job/",
        "/runs/": f"{tmp_path}/runs/",
        "s3://bucket/train.zarr": data,
        "dsoftmax-scheduler:8786": "127.0.0.1:8786",
        **{port: str(free_port()) for port in ("8786", "8787", "8788")},
    }

    def change(text: str) -> str:
        for old, new in changes.items():
            text = text.replace(old, new)
        return text

    (tmp_path / "job").mkdir()
    (configuration,) = of_kind("ConfigMap", "job.yaml", change)
    (tmp_path / "job/job.toml").write_text(configuration["data"]["job.toml"])
    with ExitStack() as stack:
        containers = Containers(change, stack, tmp_path)
        scheduler, process = containers.start(file, kind, "scheduler")
        wait_until_alive(scheduler["readinessProbe"])
        worker, _ = containers.start(file, kind, "worker")
        if "livenessProbe" in worker:
            wait_until_alive(worker["livenessProbe"])
        _, train = containers.start("job.yaml", "Job", "train")
        assert train.wait(120) == 0, (tmp_path / "train.log").read_text()
        _end(process)
        assert not alive(scheduler["livenessProbe"])
    model = load_model(tmp_path / "runs/first/model.zarr")
    here = SoftmaxRegression(alpha=1e-3).fit(f"{data}/X", f"{data}/y")
    assert model.coef_.tobytes() == here.coef_.tobytes()
