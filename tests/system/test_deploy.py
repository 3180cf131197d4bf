"""Compose, image, Kubernetes and systemd files: each passes its own validator and is hardened; no engine is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tamis.streamer.settings.load import load
from tamis.streamer.settings.tables import Settings, Trainer

from ..support.paths import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def tool(name: str, *words: str | Path, given: str | None = None, **environment: str) -> str:
    """The output of a tool in this Python's folder or on the path."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [found, *map(str, words)],
        input=given,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_compose_is_valid_and_requires_a_grafana_password() -> None:
    compose = pytest.importorskip("compose")
    binary = str(Path(compose.__file__).parent / "docker-compose")  # its Python wrapper hides errors
    check = ("-f", DEPLOY / "compose.yaml", "config", "-q")
    tool(binary, *check, GRAFANA_PASSWORD="x")
    with pytest.raises(AssertionError, match="set GRAFANA_PASSWORD"):
        tool(binary, *check, GRAFANA_PASSWORD="")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_health_checked_unprivileged_and_on_loopback(name: str) -> None:
    service: dict[str, Any] = SERVICES[name]
    assert re.fullmatch(r"\S+:v?\d[\w.-]*", service["image"]), "a version, not latest"
    assert service["healthcheck"]["test"]
    assert not str(service["user"]).startswith("0")
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert "mem_limit" in service
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (DEPLOY / source).exists(), source
            assert volume.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]


def test_deployments_name_only_existing_settings() -> None:
    texts = [path.read_text() for path in (DEPLOY / "compose.yaml", DEPLOY / "Dockerfile", *UNITS)]
    names = {name for text in texts for name in re.findall(r"\bTAMIS_[A-Z_]+", text)}
    assert {"TAMIS_BROKERS", "TAMIS_STORE", "TAMIS_TRAINER__FOLDER"} <= names
    for name in names:
        model: Any = Settings
        for part in name.removeprefix("TAMIS_").lower().split("__"):
            assert part in model.model_fields, name
            model = model.model_fields[part].annotation
            if part == "kafka":  # its keys are those of kafka-python
                break


def test_the_dockerfile_is_clean_and_copies_files_that_exist() -> None:
    tool("hadolint", "--ignore", "DL3059", DEPLOY / "Dockerfile")
    text = (DEPLOY / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in line.split():
            if name.startswith("--chmod="):
                continue
            assert (ROOT / name).exists(), name
            assert f"!{name}" in (ROOT / ".dockerignore").read_text().split(), name
    assert text.index("USER 10001") < text.index("ENTRYPOINT")
    stages = re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE)
    assert stages[-2:] == ["trainer", "worker"], "a build without --target makes the worker's image"
    for name in stages[-2:]:
        assert SERVICES[name]["build"]["target"] == name


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(tool("kubectl", "kustomize", DEPLOY / "k8s")))


def test_kubernetes_accepts_every_object(objects: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(objects))
    output = tool("kubernetes-validate", "--strict", tmp_path / "all.yaml")
    # Kubernetes does not know KEDA's kind.
    assert [line for line in output.splitlines() if "passed" not in line and "ScaledObject" not in line] == []
    assert {one["metadata"]["namespace"] for one in objects if one["kind"] != "Namespace"} == {"tamis"}


def test_pods_are_unprivileged_and_the_trainer_has_one_replica(objects: list[dict[str, Any]]) -> None:
    deployments = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "Deployment"}
    assert set(deployments) == {"tamis-worker", "tamis-trainer"}
    for spec in deployments.values():
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert {"livenessProbe", "readinessProbe", "resources"} <= container.keys()
    assert deployments["tamis-trainer"]["replicas"] == 1
    assert deployments["tamis-trainer"]["strategy"]["type"] == "Recreate"
    assert "replicas" not in deployments["tamis-worker"], "KEDA sets the number"


def test_services_that_need_a_person_are_started_again_nowhere(objects: list[dict[str, Any]]) -> None:
    """Exit codes 2, 3 and 4: systemd knows them; in images the entrypoint holds the container, and probes let it be."""
    for path in UNITS:
        assert "RestartPreventExitStatus=2 3 4" in path.read_text().splitlines()
    text = (DEPLOY / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["hold"]' in text
    assert "COPY --chmod=755 deploy/hold.sh /usr/local/bin/hold" in text
    for one in objects:
        if one["kind"] == "Deployment":
            (container,) = one["spec"]["template"]["spec"]["containers"]
            assert "command" not in container, "it would take the place of the entrypoint"
            port = str(container["ports"][0]["containerPort"])
            for probe in ("startupProbe", "livenessProbe"):
                assert container[probe]["exec"]["command"] == ["hold", "--alive", port]
            assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for name in ("worker", "trainer"):
        assert "entrypoint" not in SERVICES[name]


def test_commands_in_a_container_find_the_settings_of_the_service(objects: list[dict[str, Any]]) -> None:
    for one in objects:
        if one["kind"] == "Deployment":
            (container,) = one["spec"]["template"]["spec"]["containers"]
            given = {each["name"]: each["value"] for each in container["env"]}
            assert given["TAMIS_CONFIG"] == "/etc/tamis/line.toml"
            assert given["TZ"], "hours are local time"


def test_keda_logs_in_as_the_pods_do(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "k8s", tmp_path / "k8s")
    main = tmp_path / "k8s" / "kustomization.yaml"
    main.write_text(main.read_text().replace("# components: [login]", "components: [login]"))
    made = list(yaml.safe_load_all(tool("kubectl", "kustomize", tmp_path / "k8s")))
    (scaled,) = (one["spec"] for one in made if one["kind"] == "ScaledObject")
    (login,) = (one for one in made if one["kind"] == "TriggerAuthentication")
    assert scaled["triggers"][0]["authenticationRef"]["name"] == login["metadata"]["name"]
    assert (
        scaled["triggers"][0]["metadata"] | {"sasl": "scram_sha512", "tls": "enable"}
        == scaled["triggers"][0]["metadata"]
    )
    pods = [one["spec"]["template"]["spec"]["containers"][0] for one in made if one["kind"] == "Deployment"]
    secrets = {one["secretRef"]["name"] for pod in pods for one in pod["envFrom"]}
    for given in login["spec"]["secretTargetRef"]:
        assert given["name"] in secrets
        assert given["key"] == f"TAMIS_KAFKA__SASL_PLAIN_{given['parameter'].upper()}"


def test_workers_scale_with_lag_up_to_the_number_of_partitions(objects: list[dict[str, Any]]) -> None:
    from tamis.streamer.settings.load import load

    (scaled,) = (one["spec"] for one in objects if one["kind"] == "ScaledObject")
    settings = load(DEPLOY / "k8s" / "line.toml")
    asked = scaled["triggers"][0]["metadata"]
    assert scaled["scaleTargetRef"]["name"] == "tamis-worker"
    assert scaled["maxReplicaCount"] == settings.topics.partitions
    assert asked["topic"] == settings.topics.spectra
    assert asked["consumerGroup"] == settings.group
    assert asked["bootstrapServers"] == settings.brokers


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_accepts_a_unit_and_rates_it_as_hardened(path: Path, tmp_path: Path) -> None:
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace("/opt/tamis/bin/tamis", "/bin/true"))  # the program must exist
    output = tool("systemd-analyze", "verify", "--recursive-errors=no", unit)
    assert output.strip() == "", "its exit status is 0 even if it finds errors"
    exposed = tool("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    level = re.search(r"exposure level for \S+: ([\d.]+)", exposed)
    assert level is not None
    assert float(level[1]) < 2.5


def test_the_trainer_runs_at_lower_priority_than_the_worker() -> None:
    worker, trainer = (DEPLOY / "systemd" / f"tamis-{name}.service" for name in ("worker", "trainer"))
    for line in ("Nice=19", "IOSchedulingClass=idle", "CPUWeight=10"):
        assert line in trainer.read_text().splitlines()
        assert line not in worker.read_text().splitlines()
    assert "RestartPreventExitStatus=2" in worker.read_text(), "no restart after wrong settings"


def test_prometheus_has_the_same_jobs_in_compose_as_on_a_box() -> None:
    box = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    compose = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())
    jobs = [[job["job_name"] for job in config["scrape_configs"]] for config in (box, compose)]
    assert jobs[0] == jobs[1]
    ports = [job["dns_sd_configs"][0]["port"] for job in compose["scrape_configs"]]
    assert ports == [Settings().metrics.port, Trainer().metrics_port]  # type: ignore[call-arg]


def test_commands_on_the_box_find_the_folders_of_its_services(tmp_path: Path) -> None:
    """By the settings alone: a person at the box does not have the environment of a unit."""
    (edit,) = re.findall(r"sudo (sed -i -E '.*') /etc/tamis/line.toml", (ROOT / "docs" / "deploy.md").read_text())
    shutil.copy(DEPLOY / "line.toml", tmp_path / "line.toml")
    subprocess.run(["bash", "-c", f"{edit} line.toml"], cwd=tmp_path, check=True)
    settings = load(tmp_path / "line.toml")
    folders = (settings.store, settings.drift.folder, settings.trainer.folder)
    assert folders == ("/var/lib/tamis/store", "/var/lib/tamis/drift", "/var/lib/tamis/trainer")
    for unit in UNITS:
        assert not re.findall(r"^Environment=.*TAMIS_", unit.read_text(), re.M), "settings are in the file alone"
