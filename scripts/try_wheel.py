"""Try an installed wheel: it imports without Ray, and a control plane starts inside it."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import schedulemesh
from schedulemesh._native import EmbeddedServer
from schedulemesh.agent import __version__ as agent_version


def main() -> int:
    """Report what is wrong with the installed package."""
    home = Path(schedulemesh.__file__).parent
    with tempfile.TemporaryDirectory() as state_dir:
        server = EmbeddedServer.start(state_dir)
        with schedulemesh.Client(server.url, server.token) as client:
            ready = client.request("GET", "/ready")
        server.shutdown()
    facts = {
        "version": schedulemesh.__version__,
        "agent version agrees": agent_version == schedulemesh.__version__,
        "typed": (home / "py.typed").exists() and (home / "_native.pyi").exists(),
        "Ray was not imported": "ray" not in sys.modules,
        "an embedded control plane accepts work": ready["ready"],
    }
    sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    return 0 if all(facts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
