"""The clusters file: what is taken over, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from schedulemesh import ConfigurationError, clusters_file

GOOD = """\
clusters:
  - name: centos
    head_address: ray-centos.example:6379 # GCS or Ray Client address
    dashboard: http://ray-centos.example:8265 # Jobs and state REST
    prefer: false
    weight: 1.0
    tags: [linux, x86_64]
    runtime_env: {conda: ts, env_vars: {home_dir: /home/x}, working_dir: .}
    token: env:CENTOS_RAY_TOKEN
  - name: mac
    head_address: ray-mac.example:6379
    prefer: true
    weight: 1.2
    max_utilisation: 0.9
    job_interval: 30s
"""

BAD = """\
clusters:
  - name: centos
    dashbord: http://ray-centos.example:8265
    weight: heavy
    prefer: yes please
    tags: linux
  - name: centos
    dashboard: ray-centos.example:8265
    token: abc123
  - head_address: ray-mac.example
    weight: -1
  - name: old
    head_address: ray://old.example:10001
    max_tasks: 0
    max_tasks: 1
extra: 1
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of one's own, without settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLUSTER_CONFIG_FILE", raising=False)
    return tmp_path


def test_the_file_of_the_documents_is_read(home: Path) -> None:
    path = home / "mine.yaml"
    path.write_text(GOOD)
    centos, mac = clusters_file.read(path).clusters
    shared = {"breaker_failures": 5, "breaker_recovery_ms": 60_000}
    assert centos.body() == {
        "name": "centos", "dashboard": "http://ray-centos.example:8265", "prefer": False,
        "weight": 1.0, "tags": ["linux", "x86_64"], "token": "env:CENTOS_RAY_TOKEN",
        "runtime_env": {
            "conda": "ts", "env_vars": {"home_dir": "/home/x"}, "working_dir": str(home),
        },
        "max_utilisation": 0.7, **shared,
    }  # fmt: skip
    assert mac.body() == {
        "name": "mac", "prefer": True, "weight": 1.2, "max_utilisation": 0.9,
        "job_interval_ms": 30_000, **shared,
    }  # fmt: skip
    assert (centos.needs_agent, mac.needs_agent) == (False, True)
    assert mac.head_address == "ray-mac.example:6379"


def test_every_mistake_is_told_at_once_with_its_line(home: Path) -> None:
    path = home / "bad.yaml"
    path.write_text(BAD)
    with pytest.raises(ConfigurationError) as raised:
        clusters_file.read(path)
    assert str(raised.value).replace(f"{path}", "bad.yaml").splitlines() == [
        "[CONFIGURATION] bad.yaml has 15 mistakes",
        "  bad.yaml:16: extra: is no field",
        "  bad.yaml:3: clusters[0].dashbord: is no field; did you mean dashboard?",
        "  bad.yaml:4: clusters[0].weight: must be a number, not 'heavy'",
        "  bad.yaml:5: clusters[0].prefer: must be true or false, not 'yes please'",
        "  bad.yaml:6: clusters[0].tags: must be a list of texts, not 'linux'",
        "  bad.yaml:2: clusters[0]: nothing says how to reach it: "
        "give dashboard, agent or head_address",
        "  bad.yaml:8: clusters[1].dashboard: "
        "'ray-centos.example:8265' does not start with http://",
        "  bad.yaml:9: clusters[1].token: "
        "holds a secret; write env:NAME or file:PATH, which say where it is",
        "  bad.yaml:7: clusters[1].name: centos is also clusters[0]",
        "  bad.yaml:10: clusters[2].head_address: "
        "'ray-mac.example' has no port; an address looks like head.example:6379",
        "  bad.yaml:11: clusters[2].weight: must be at least 0, not -1",
        "  bad.yaml:10: clusters[2].name: is missing",
        "  bad.yaml:15: clusters[3].max_tasks: is said twice",
        "  bad.yaml:14: clusters[3].max_tasks: must be a whole number, at least 1, not 0",
        "  bad.yaml:13: clusters[3].head_address: ray://old.example:10001 is a Ray Client address, "
        "through which no agent can be started; give dashboard",
        "  fix: a clusters file starts with `clusters:` and a list of entries",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1: clusters: must be a list"),
        ("- a\n", "1: file: must be a mapping"),
        ("clusters: {}\n", "1: clusters: must be a list"),
        ("clusters:\n  - [\n", "3: "),
        ("a: *b\n", "1: "),
    ],
)
def test_what_is_no_clusters_file_is_told(home: Path, text: str, told: str) -> None:
    path = home / "none.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"none.yaml:{told}"):
        clusters_file.read(path)


def test_settings_come_from_the_environment_then_their_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / ".ray_scheduler"
    folder.mkdir()
    (folder / "settings.yaml").write_text("execution_mode: serial\nresource_threshold: 0.5\n")
    monkeypatch.setenv("SCHEDULER_RESOURCE_THRESHOLD", "0.6")
    monkeypatch.setenv("SCHEDULER_SUBMISSION_WAIT_TIME", "15")
    path = home / "mine.yaml"
    path.write_text(GOOD)
    body = clusters_file.read(path).clusters[0].body()
    assert body["max_utilisation"] == 0.6
    assert body["max_tasks"] == 1
    assert body["job_interval_ms"] == 15_000


def test_variables_that_look_like_settings_are_told_with_what_was_meant(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SCHEDULER_RESOURCE_TRESHOLD", "0.6")
    monkeypatch.setenv("SCHEDULER_QUEUE_SIZE", "10")
    # As Kubernetes sets it for a service called `scheduler`.
    monkeypatch.setenv("SCHEDULER_SERVICE_HOST", "10.0.0.1")
    assert clusters_file.read_settings().resource_threshold == 0.7
    queue, threshold = (record.getMessage() for record in caplog.records)
    assert threshold == (
        "SCHEDULER_RESOURCE_TRESHOLD is ignored, it is no setting; "
        "did you mean SCHEDULER_RESOURCE_THRESHOLD?"
    )
    assert queue.startswith("SCHEDULER_QUEUE_SIZE has no effect here: set queue-max of the")


def test_settings_of_tasks_and_of_the_control_plane(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = home / ".ray_scheduler"
    folder.mkdir()
    text = "task_timeout: 10m\nqueue_size: 5000\njob_timeout: 3600\nbackoff: 0.5\n"
    (folder / "settings.yaml").write_text(text)
    monkeypatch.setenv("SCHEDULER_CONNECT_TIMEOUT", "2s")
    found = clusters_file.read_settings()
    assert (found.task_timeout, found.job_timeout) == (600.0, 3600.0)
    assert (found.connect_timeout, found.backoff) == (2.0, 0.5)
    (said,) = (record.getMessage() for record in caplog.records)
    assert "settings.yaml:2: queue_size has no effect here: set queue-max of the" in said


def test_wrong_settings_are_told_all_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / ".ray_scheduler"
    folder.mkdir()
    (folder / "settings.yaml").write_text("execution_mod: serial\n")
    monkeypatch.setenv("SCHEDULER_BREAKER_FAILURES", "many")
    with pytest.raises(ConfigurationError) as raised:
        clusters_file.read_settings()
    file, environment = raised.value.details
    assert file.endswith(
        "settings.yaml:1: execution_mod: is no field; did you mean execution_mode?"
    )
    assert environment == (
        "environment: SCHEDULER_BREAKER_FAILURES: must be a whole number, at least 1, not 'many'"
    )


def test_files_are_searched_in_the_promised_order(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clusters_file.find() is None
    folder = home / ".ray_scheduler"
    folder.mkdir()
    places = [folder / "clusters.yaml", Path("clusters.yaml"), home / "by_variable.yaml"]
    for place in places:
        place.write_text(GOOD)
        if place.name == "by_variable.yaml":
            monkeypatch.setenv("CLUSTER_CONFIG_FILE", str(place))
        assert clusters_file.find() == place
    given = home / "given.yaml"
    with pytest.raises(ConfigurationError, match=r"no clusters file .*given.yaml"):
        clusters_file.find(given)
    given.write_text(GOOD)
    assert clusters_file.find(given) == given
