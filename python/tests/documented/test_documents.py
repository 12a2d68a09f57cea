"""What the documents show is what happens: their programs run, and print what stands below them."""

from __future__ import annotations

import re
import sys

import pytest
from documented.conftest import ROOT, Run

DOCUMENTS = ["README.md", "docs/guide/python.md"]
PROGRAM = re.compile(r"```python\n((?:(?!```).)*)```\n+```text\n(.*?)```", re.DOTALL)
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def programs() -> list[tuple[str, str, str]]:
    found = []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        found += [(name, program, output) for program, output in PROGRAM.findall(text)]
    return found


def test_there_are_programs_to_run() -> None:
    assert len(programs()) >= 5


@pytest.mark.ray
@pytest.mark.parametrize(
    ("program", "output"),
    [
        pytest.param(program, output, id=f"{name}-{place}")
        for place, (name, program, output) in enumerate(programs())
    ],
)
def test_a_program_prints_what_the_document_says(program: str, output: str, run: Run) -> None:
    assert run(sys.executable, "-c", f"import schedulemesh\n{program}") == output


@pytest.mark.ray
def test_the_commands_of_the_readme_work_as_they_stand(run: Run) -> None:
    blocks = SHELL.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    (script,) = (block for block in blocks if "schedulemesh ps --all" in block)
    script = script.replace("source .venv/bin/activate\n", "")
    printed = run("bash", "-euo", "pipefail", "-c", script)
    for fact in ("It would start now, on west.", "hello", "primes below 100: [2, 3, 5"):
        assert fact in printed
