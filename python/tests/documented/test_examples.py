"""The examples run as they are, and print what they are about."""

from __future__ import annotations

import sys

import pytest
from documented.conftest import ROOT, Run
from schedulemesh import clusters_file

FACTS = {
    "basics": ["2**31 - 1 is prime: True", "squares: [0, 1, 4, 9, 16]", "same task: True 1024"],
    "actors": ["refused: 1000 is more than 160", "by id: 100", "after its end: ActorEndedError"],
    "jobs": ["[0, 1, 4, 9, 16]", "cancelled: True"],
    "routing": ["tag:        west", "avoided:    east", "refused:    INFEASIBLE", "TOO_BIG"],
    "multicluster": ["task: 1024 COMPLETED", "Hello, Grace, number 2", "job: SUCCEEDED 42"],
}


def test_every_example_is_run() -> None:
    there = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert there == set(FACTS) | {"demo"}, "the demo has a test of its own"


def test_the_clusters_file_is_read_whole() -> None:
    entries = clusters_file.read(ROOT / "examples/clusters.yaml").clusters
    assert [entry.name for entry in entries] == ["centos", "mac"]


@pytest.mark.ray
@pytest.mark.parametrize("name", FACTS)
def test_an_example_runs(name: str, run: Run) -> None:
    printed = run(sys.executable, f"examples/{name}.py")
    for fact in FACTS[name]:
        assert fact in printed


@pytest.mark.ray
def test_the_demo_loses_nothing(run: Run) -> None:
    printed = run(sys.executable, "examples/demo.py")
    assert "lost: 0, run twice to completion: 0" in printed
    assert "add(1000) = 1111 on mac" in printed
