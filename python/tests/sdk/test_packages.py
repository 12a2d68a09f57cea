"""Folders of this machine that travel with a runtime environment."""

from __future__ import annotations

import io
import os
import re
import types
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import schedulemesh
from schedulemesh import packages
from schedulemesh._native import package_id
from sdk.fake_server import TOKEN

if TYPE_CHECKING:
    from pathlib import Path

    from schedulemesh import Client
    from sdk.fake_server import FakeServer

WAIT_S = 20
URI = re.compile(r"schedulemesh://([0-9a-f]{32})/(\d+)/(.+)")


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return fill(tmp_path / "project", {"main.py": "print(1)", "pkg/__init__.py": "X = 1"})


def env_of(server: FakeServer, number: int) -> dict[str, Any]:
    env: dict[str, Any] = server.tasks[number].spec["runtime_env"]
    return env


def names_in(server: FakeServer, uri: str) -> list[str]:
    """The files of a package, as the control plane has it."""
    found = URI.fullmatch(uri)
    assert found
    data = server.packages[found[1]]
    assert int(found[2]) == len(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.namelist()


def shipped(client: Client, server: FakeServer, folder: Path, **more: Any) -> list[str]:
    uri = client.packages.ship({"working_dir": str(folder), **more})["working_dir"]
    return names_in(server, uri)


def test_a_function_takes_its_folder_along(
    client: Client, server: FakeServer, project: Path
) -> None:
    env = {"working_dir": project, "excludes": ["main.py"], "env_vars": {"A": "1"}}
    assert client.options(runtime_env=env).submit(abs, -1).result(WAIT_S) == 1
    sent = env_of(server, 1)
    assert set(sent) == {"working_dir", "env_vars"}
    assert names_in(server, sent["working_dir"]) == ["pkg/__init__.py"]


def test_a_job_names_its_package_twice_so_that_it_is_kept(
    client: Client, server: FakeServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    client.submit_job("python main.py", runtime_env={"working_dir": "."}).result(WAIT_S)
    uri = env_of(server, 1)["working_dir"]
    assert names_in(server, uri) == ["main.py", "pkg/__init__.py"]
    assert f'{{"working_dir": "{uri}"}}'.encode() in server.tasks[1].payload["inline"]
    # That of the options counts when the job says nothing.
    client.options(runtime_env={"working_dir": "."}).submit_job("python main.py").result(WAIT_S)
    assert uri.encode() in server.tasks[2].payload["inline"]


def test_equal_folders_are_kept_once(
    client: Client, server: FakeServer, project: Path, tmp_path: Path
) -> None:
    other = fill(tmp_path / "copy", {"pkg/__init__.py": "X = 1", "main.py": "print(1)"})
    os.utime(other / "main.py", (1, 1))
    one = client.packages.ship({"working_dir": str(project)})
    assert client.packages.ship({"working_dir": str(other)}) == one
    assert server.uploads == 1
    with schedulemesh.Client(server.url, TOKEN) as second:
        assert second.packages.ship({"working_dir": str(project)}) == one
    assert server.uploads == 1
    (other / "main.py").write_text("print(2)")
    assert client.packages.ship({"working_dir": str(other)}) != one
    assert server.uploads == 2


def test_a_package_that_was_given_up_is_brought_again(
    client: Client, server: FakeServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitter = client.options(runtime_env={"working_dir": str(project)})
    submitter.submit(abs, 1).result(WAIT_S)
    server.packages.clear()
    submitter.submit(abs, 1).result(WAIT_S)
    assert server.uploads == 1
    monkeypatch.setattr(packages, "CLAIM_S", -1.0)
    client._specs.clear()
    submitter.submit(abs, 1).result(WAIT_S)
    assert server.uploads == 2


def test_what_is_ignored_stays_here(client: Client, server: FakeServer, tmp_path: Path) -> None:
    folder = fill(
        tmp_path / "p",
        {
            ".gitignore": "*.log\n/build/\n!keep.log\n", ".rayignore": "data\n", ".git/HEAD": "",
            "__pycache__/a.pyc": "", ".venv/x": "", "a.log": "", "keep.log": "", "build/x": "",
            "sub/build/x": "", "sub/.gitignore": "*.tmp\n", "sub/a.tmp": "", "b.tmp": "",
            "sub/data/x": "", "c.bin": "",
        },
    )  # fmt: skip
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to(folder)
    assert shipped(client, server, folder, excludes=["*.bin"]) == [
        ".gitignore", ".rayignore", "b.tmp", "empty/", "keep.log",
        "sub/.gitignore", "sub/build/x",
    ]  # fmt: skip


def test_the_environment_of_ray_says_what_else_is_ignored(
    client: Client, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(tmp_path / "p", {".gitignore": "*.log\n", "a.log": "", "venv/x": "", "b": ""})
    monkeypatch.setenv("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", "b")
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
    assert shipped(client, server, folder) == [".gitignore", "a.log", "venv/x"]


def test_a_program_stays_one(client: Client, server: FakeServer, project: Path) -> None:
    (project / "main.py").chmod(0o775)
    uri = client.packages.ship({"working_dir": str(project)})["working_dir"]
    with zipfile.ZipFile(io.BytesIO(next(iter(server.packages.values())))) as archive:
        modes = [oct(info.external_attr >> 16) for info in archive.infolist()]
    assert modes == ["0o100755", "0o100644"], uri


def test_modules_of_every_kind_travel_and_addresses_stay(
    client: Client, server: FakeServer, project: Path, tmp_path: Path
) -> None:
    single = fill(tmp_path, {"single.py": "Y = 2", "a-1-py3-none-any.whl": "wheel"}) / "single.py"
    loaded = types.ModuleType("pkg")
    loaded.__path__ = [str(project / "pkg")]
    modules = [
        project / "pkg", loaded, str(single), str(tmp_path / "a-1-py3-none-any.whl"),
        "s3://code/m.zip",
    ]  # fmt: skip
    env = {"py_modules": modules, "working_dir": "https://code/x.zip"}
    client.options(runtime_env=env).submit(abs, 1).result(WAIT_S)
    sent = env_of(server, 1)
    folder, same, one, wheel, remote = sent["py_modules"]
    assert (folder, remote, sent["working_dir"]) == (same, "s3://code/m.zip", "https://code/x.zip")
    assert names_in(server, folder) == ["pkg/__init__.py"]
    assert names_in(server, one) == ["single.py"]
    found = URI.fullmatch(wheel)
    assert found
    assert (server.packages[found[1]], found[3]) == (b"wheel", "a-1-py3-none-any.whl")


def test_an_archive_is_taken_as_it_is(client: Client, server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "code.tar.gz"
    path.write_bytes(b"archive")
    uri = client.packages.ship({"working_dir": str(path)})["working_dir"]
    assert uri == f"schedulemesh://{package_id(str(path))}/7/package.tar.gz"
    assert list(server.packages.values()) == [b"archive"]


def test_what_is_too_large_is_told_with_its_largest_files(
    client: Client, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "PACKAGE_MAX", 1 << 20)
    folder = fill(tmp_path / "p", {"small.py": "1"})
    (folder / "weights.bin").write_bytes(os.urandom(2 << 20))
    submitter = client.options(runtime_env={"working_dir": str(folder)})
    with pytest.raises(schedulemesh.TaskSubmissionError) as raised:
        submitter.submit(abs, 1)
    assert str(raised.value).splitlines() == [
        f"[TOO_LARGE] {folder} makes a package of more than the 1 MiB allowed",
        f"  2.0 MiB {folder}/weights.bin",
        f"  0.0 MiB {folder}/small.py",
        "  fix: leave files out with runtime_env excludes=[...], .gitignore or .rayignore, or give "
        "the URI of an archive (https, s3, gs)",
    ]
    assert server.packages == {}
    monkeypatch.setattr(packages, "FILES_MAX", 1)
    with pytest.raises(schedulemesh.TaskSubmissionError, match="more than the 1 files"):
        submitter.submit(abs, 1)


def test_what_is_not_there_is_refused_before_anything_is_sent(
    client: Client, server: FakeServer, tmp_path: Path
) -> None:
    env = {"working_dir": str(tmp_path / "nowhere"), "py_modules": [3], "excludes": "*.bin"}
    with pytest.raises(schedulemesh.ConfigurationError) as raised:
        client.options(runtime_env=env)
    assert raised.value.details == [
        f"runtime_env: working_dir '{tmp_path}/nowhere' is no URI, and no folder or archive "
        "(.zip, .tar.gz, .tgz, .tar.xz) on this machine",
        "runtime_env: py_modules 3 is no URI, and no folder, .py or .whl file on this machine",
        "runtime_env: excludes is '*.bin'; a list of texts is needed",
    ]
    with pytest.raises(schedulemesh.ConfigurationError, match="nowhere"):
        client.submit_job("true", runtime_env={"working_dir": str(tmp_path / "nowhere")})
    with pytest.raises(schedulemesh.ConfigurationError, match="nowhere"):
        client.add_cluster("a", runtime_env={"working_dir": str(tmp_path / "nowhere")})
    assert (server.tasks, server.packages, server.clusters) == ({}, {}, {})


def test_the_folder_of_a_cluster_travels_too(
    client: Client, server: FakeServer, project: Path
) -> None:
    client.add_cluster("east", runtime_env={"working_dir": str(project)})
    uri = server.clusters["east"]["runtime_env"]["working_dir"]
    assert names_in(server, uri) == ["main.py", "pkg/__init__.py"]
