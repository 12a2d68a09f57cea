"""Importing: what it costs, what it does not pull in, which paths are promised."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import schedulemesh

PACKAGES = Path(schedulemesh.__file__).parent.parent
IMPORT_BUDGET_S = 0.1

CLIENT_API = "ray_multicluster_scheduler.app.client_api"

PUBLISHED = {
    **{
        f"{CLIENT_API}.{name}": f"schedulemesh.multicluster.{name}"
        for name in (
            "get_job_info",
            "get_job_logs",
            "get_job_status",
            "get_task_result",
            "get_task_status",
            "graceful_shutdown_on_keyboard_interrupt",
            "initialize_scheduler_environment",
            "list_clusters",
            "stop_job",
            "submit_actor",
            "submit_job",
            "submit_task",
            "wait_for_all_jobs",
        )
    },
    f"{CLIENT_API}.submit_task:submit_task": "schedulemesh.multicluster.submit_task",
    f"{CLIENT_API}.submit_actor:submit_actor": "schedulemesh.multicluster.submit_actor",
    f"{CLIENT_API}.submit_job:submit_job": "schedulemesh.multicluster.submit_job",
    f"{CLIENT_API}.UnifiedScheduler": "schedulemesh.unified.UnifiedScheduler",
    f"{CLIENT_API}.unified_scheduler:UnifiedScheduler": "schedulemesh.unified.UnifiedScheduler",
    **{
        f"ray_multicluster_scheduler.common.exception.{name}": f"schedulemesh.errors.{name}"
        for name in (
            "ClusterConnectionError",
            "ConfigurationError",
            "NoHealthyClusterError",
            "PolicyEvaluationError",
            "SchedulerError",
            "TaskSubmissionError",
        )
    },
    **{
        f"ray_multicluster_scheduler.common.model.{name}": f"schedulemesh.models.{name}"
        for name in (
            "ClusterMetadata",
            "JobDescription",
            "ResourceSnapshot",
            "SchedulingDecision",
            "TaskDescription",
        )
    },
}


def find(path: str) -> Any:
    """Return what a path names; `module:name` where a function hides its module."""
    module, _, name = path.rpartition(":" if ":" in path else ".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("path", "home"), PUBLISHED.items())
def test_a_published_path_is_the_same_object_as_its_home(path: str, home: str) -> None:
    assert find(path) is find(home)


@pytest.mark.parametrize(
    "path",
    sorted((PACKAGES / "ray_multicluster_scheduler").rglob("*.py")),
    ids=lambda path: str(path.relative_to(PACKAGES)),
)
def test_a_file_of_a_published_path_holds_no_code(path: Path) -> None:
    docstring, *rest = ast.parse(path.read_text()).body
    assert isinstance(docstring, ast.Expr)
    for statement in rest:
        if isinstance(statement, ast.Assign):
            assert [ast.unparse(target) for target in statement.targets] == ["__all__"]
        else:
            assert isinstance(statement, ast.ImportFrom)


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True, capture_output=True, text=True, cwd=PACKAGES, timeout=60,
    )  # fmt: skip
    return done.stdout


def test_importing_is_quick() -> None:
    code = (
        "import time; start = time.process_time(); import schedulemesh;"
        "print(time.process_time() - start)"
    )
    assert min(float(run(code)) for _ in range(3)) < IMPORT_BUDGET_S


@pytest.mark.parametrize(
    "code",
    [
        "import schedulemesh",
        "from schedulemesh import *",
        f"from {CLIENT_API} import submit_task",
    ],
)
def test_ray_is_never_imported(code: str) -> None:
    modules = json.loads(run(f"import json, sys\n{code}\nprint(json.dumps(list(sys.modules)))"))
    assert "schedulemesh" in modules
    assert not [name for name in modules if name.partition(".")[0] == "ray"]


def test_importing_loads_neither_pickler_nor_native_module() -> None:
    modules = run("import sys, schedulemesh; print(*sys.modules)").split()
    assert not {"cloudpickle", "schedulemesh._native", "yaml", "asyncio"} & set(modules)


def test_every_public_name_can_be_had() -> None:
    for name in schedulemesh.__all__:
        assert getattr(schedulemesh, name) is not None
    assert set(schedulemesh.__all__) <= set(dir(schedulemesh))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = schedulemesh.nothing  # type: ignore[attr-defined]


def test_no_module_hides_a_public_name() -> None:
    modules = {path.stem for path in (PACKAGES / "schedulemesh").glob("*.py")}
    assert not modules & set(schedulemesh.__all__)
