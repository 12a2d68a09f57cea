"""Checks that every link between documents leads somewhere: to a file, and to a heading in it."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def documents() -> list[Path]:
    """List the Markdown files that belong to the project, new ones included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(  # noqa: S603 - no input of others is in it
        command, cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).exists()]


def prose(path: Path) -> str:
    """Read a document without its code blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


@cache
def anchors(path: Path) -> frozenset[str]:
    """List the anchors of the headings of a document, as forges make them."""
    plain = (re.sub(r"[`*]", "", heading) for heading in HEADING.findall(prose(path)))
    return frozenset(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in plain)


def broken_links(path: Path) -> list[str]:
    """List the links of one document that lead nowhere."""
    broken = []
    for link in LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists():
            broken.append(f"{path.relative_to(ROOT)}: {link}: there is no such file")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            broken.append(f"{path.relative_to(ROOT)}: {link}: there is no such heading")
    return broken


def main() -> int:
    """Report every broken link and fail if there is one."""
    paths = documents()
    broken = [problem for path in paths for problem in broken_links(path)]
    sys.stdout.writelines(f"{problem}\n" for problem in broken)
    sys.stdout.write(f"{len(paths)} documents, {len(broken)} broken links\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
