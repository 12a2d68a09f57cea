"""The agent: runs in each Ray cluster, is told what to do by the control plane, and reports.

It is a native Ray driver in plain Python that imports only what `ray[default]` brings. It moves
bytes: user code, arguments and results are pickled by clients and workers, never by the agent.
"""

__version__ = "0.1.0"
