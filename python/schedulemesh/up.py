"""Runs a control plane and Ray clusters on this machine: for trying out, for demos and for tests.

Everything is real: `schedulemesh serve` as a process of its own, a Ray cluster on a loopback
address for each name, and an agent in each. `schedulemesh up` runs `main`; programs use
`LocalMesh`.

Example:
    with LocalMesh([Site("linux", tags=("linux",)), Site("mac", tags=("macos",))]) as mesh:
        client = schedulemesh.connect(state_dir=mesh.state_dir)
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedulemesh.local import LocalCluster, LocalClusterError, LocalPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

    from typing_extensions import Self

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
_POLL_S = 0.05
_FIRST_ADDRESS = 31
"""Clusters get 127.0.0.31 and the addresses after it."""

_MOST = 64
"""Most clusters, and most cores of each: this is one machine."""


class UpError(RuntimeError):
    """Says what could not be started, and what it printed."""


@dataclass(frozen=True)
class Site:
    """Says what one local cluster should be like.

    Attributes:
        name: Its name.
        tags: Words that tasks may require, prefer or avoid.
        cpus: Cores that it claims to have.
        resources: Custom resources.
        labels: Labels of its node.
        prefer: Whether its score is multiplied by 1.2.
        weight: What its score is multiplied by.
        lost_after: How long its agent may be silent before it counts as lost, such as `30s`.
    """

    name: str
    tags: Sequence[str] = ()
    cpus: int = 2
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    prefer: bool = False
    weight: float = 1.0
    lost_after: str = "30s"

    def plan(self, place: int) -> LocalPlan:
        """Return the plan of its Ray cluster.

        Args:
            place: Which of the clusters it is, from 0.
        """
        address = f"127.0.0.{_FIRST_ADDRESS + place}"
        return LocalPlan(self.name, address, self.cpus, self.resources, self.labels)

    def settings(self) -> list[str]:
        """Return what `schedulemesh cluster add` is told about it."""
        settings = ["--replace", self.name, "--weight", str(self.weight)]
        settings += ["--lost-after", self.lost_after]
        settings += ["--prefer"] if self.prefer else []
        return settings + [word for tag in self.tags for word in ("--tag", tag)]


class LocalMesh:
    """Is a control plane with local clusters. Use it in a `with` statement."""

    def __init__(
        self,
        sites: Sequence[Site],
        *,
        state_dir: str | os.PathLike[str] | None = None,
        listen: str = "127.0.0.1:0",
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare it; nothing runs yet.

        Args:
            sites: The clusters.
            state_dir: Where the control plane keeps its state; a temporary folder when not given.
            listen: Where it listens.
            tell: Is called with a line of text at every step.
        """
        self.sites = list(sites)
        self.listen = listen
        self.clusters: list[LocalCluster] = []
        self._tell = tell or (lambda _line: None)
        self._owns_state = state_dir is None
        self.state_dir = Path(state_dir or tempfile.mkdtemp(prefix="schedulemesh-"))
        self._serve: subprocess.Popen[bytes] | None = None
        self._agents: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        """Start everything; when one part fails, end the others."""
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        """End everything."""
        self.stop()

    @property
    def url(self) -> str:
        """Where the control plane is."""
        facts = json.loads((self.state_dir / "server.json").read_text(encoding="utf-8"))
        return str(facts["url"])

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to find this control plane."""
        foreign = ("SCHEDULEMESH_URL", "SCHEDULEMESH_TOKEN")
        mine = {name: value for name, value in os.environ.items() if name not in foreign}
        return {**mine, "SCHEDULEMESH_STATE_DIR": str(self.state_dir)}

    def start(self) -> None:
        """Start clusters and control plane side by side, then the agents."""
        self._tell(f"starting {len(self.sites)} Ray clusters and a control plane")
        for place, site in enumerate(self.sites):
            # One by one, so that what has started is ended when the next one fails.
            self.clusters.append(LocalCluster.start(site.plan(place)))
        self.start_control_plane()
        for site, cluster in zip(self.sites, self.clusters, strict=True):
            self.command("cluster", "add", *site.settings())
            cluster.wait_ready()
            self.start_agent(site.name)
        self.wait_linked()

    def start_control_plane(self) -> None:
        """Start `schedulemesh serve`, and wait until it accepts work."""
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        arguments = ["serve", "--listen", self.listen, "--state-dir", str(self.state_dir)]
        self._serve = self._spawn("serve", [program(), *arguments])
        self._wait_for("the control plane", self._serve, "serve", self._is_ready)
        # A restart listens where agents and clients look for it.
        self.listen = self.url.partition("://")[2]
        self._tell(f"control plane at {self.url}")

    def kill_control_plane(self) -> None:
        """End it as a power cut would: `kill -9`, no farewell."""
        if self._serve is not None:
            self._serve.kill()
            self._serve.wait()

    def stop_cluster(self, name: str) -> None:
        """End a whole Ray cluster, and with it its agent.

        Args:
            name: The name of the cluster.
        """
        self.clusters[self._place(name)].stop()
        self.kill_agent(name)

    def start_cluster(self, name: str) -> None:
        """Start a cluster that was stopped, with nothing of what it knew, and its agent.

        Args:
            name: The name of the cluster.
        """
        place = self._place(name)
        self.clusters[place] = LocalCluster.start(self.sites[place].plan(place))
        self.clusters[place].wait_ready()
        self.start_agent(name)

    def _place(self, name: str) -> int:
        return next(place for place, site in enumerate(self.sites) if site.name == name)

    def start_agent(self, name: str) -> None:
        """Start the agent of a cluster.

        Args:
            name: The name of the cluster.
        """
        cluster = next(cluster for cluster in self.clusters if cluster.name == name)
        token = self.command("cluster", "token", name).strip()
        module = [sys.executable, "-m", "schedulemesh.agent"]
        arguments = ["--server", self.url, "--cluster", name, "--ray-address", cluster.address]
        env = {"SCHEDULEMESH_TOKEN": token}
        self._agents[name] = self._spawn(f"agent-{name}", [*module, *arguments], env)

    def kill_agent(self, name: str) -> None:
        """End the agent of a cluster with `kill -9`.

        Args:
            name: The name of the cluster.
        """
        self._agents[name].kill()
        self._agents[name].wait()

    def wait_linked(self) -> None:
        """Wait until every cluster is linked to the control plane."""
        for name, agent in self._agents.items():
            linked = self._is_linked(name)
            self._wait_for(f"the agent of {name}", agent, f"agent-{name}", linked)
            self._tell(f"cluster {name} is linked")

    def command(self, *words: str) -> str:
        """Run a command of `schedulemesh` against this control plane, and return what it prints.

        Args:
            words: The command, without the program.
        """
        done = subprocess.run(  # noqa: S603 - our own program
            [program(), *words], env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise UpError(f"schedulemesh {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def dead(self) -> str | None:
        """Return the name of a part that ended although nobody ended it."""
        parts = {"serve": self._serve} | {
            f"agent-{name}": agent for name, agent in self._agents.items()
        }
        ended = (name for name, part in parts.items() if part and part.poll() is not None)
        return next(ended, None)

    def story(self, name: str) -> str:
        """Return the last words of a part: of `serve` or of `agent-NAME`.

        Args:
            name: The part.
        """
        path = self.state_dir / "logs" / f"{name}.log"
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return f"{path}:\n{text[-2000:].strip()}"

    def stop(self) -> None:
        """End everything that was started, agents first; may be called twice."""
        with contextlib.ExitStack() as stack:
            if self._owns_state:
                stack.callback(shutil.rmtree, self.state_dir, ignore_errors=True)
            for cluster in self.clusters:
                stack.callback(cluster.stop)
            if self._serve is not None:
                stack.callback(_end, [self._serve])
            stack.callback(_end, list(self._agents.values()))

    def _spawn(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        logs = self.state_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{name}.log").open("ab") as log:
            # In a session of its own, so that Ctrl-C reaches this program alone, which ends its
            # parts in order.
            return subprocess.Popen(  # noqa: S603 - our own programs
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**self.environment, **(env or {})},
            )

    def _wait_for(
        self, what: str, part: subprocess.Popen[bytes], log: str, there: Callable[[], bool]
    ) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not there():
            if part.poll() is not None:
                raise UpError(f"{what} ended with {part.returncode}; {self.story(log)}")
            if time.monotonic() > deadline:
                raise UpError(f"{what} is not up after {START_TIMEOUT_S:.0f} s; {self.story(log)}")
            time.sleep(_POLL_S)

    def _is_ready(self) -> bool:
        return (self.state_dir / "server.json").exists() and self._says_yes("status")

    def _says_yes(self, *words: str) -> bool:
        try:
            self.command(*words)
        except UpError:
            return False
        return True

    def _is_linked(self, name: str) -> Callable[[], bool]:
        def linked() -> bool:
            clusters: list[dict[str, Any]] = json.loads(self.command("cluster", "ls", "-o", "json"))
            links = {cluster["spec"]["name"]: cluster["link"] for cluster in clusters}
            return links.get(name) == "ready"

        return linked


def program() -> str:
    """Return the path of the `schedulemesh` command, preferably of this Python's environment."""
    mine = Path(sys.executable).with_name("schedulemesh")
    found = str(mine) if mine.exists() else shutil.which("schedulemesh")
    if found is None:
        raise UpError("the schedulemesh command is not installed beside this Python, nor on PATH")
    return found


def default_sites(count: int, cpus: int = 2) -> list[Site]:
    """Return the clusters of `schedulemesh up`: `east`, `west`, ..., each with its name as a tag.

    Args:
        count: How many.
        cpus: Cores of each.
    """
    points = ["east", "west", "north", "south"]
    names = points + [f"site-{number}" for number in range(len(points) + 1, count + 1)]
    return [Site(name, tags=("local", name), cpus=cpus) for name in names[:count]]


def default_state_dir() -> Path:
    """Return where a control plane keeps its state when nobody says otherwise."""
    if said := os.environ.get("SCHEDULEMESH_STATE_DIR"):
        return Path(said)
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local/state") / "schedulemesh"


def _end(parts: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes: all are told at once, and those that do not listen are killed."""
    for part in parts:
        part.terminate()
    for part in parts:
        _wait_or_kill(part)


def _wait_or_kill(part: subprocess.Popen[bytes]) -> None:
    try:
        part.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        part.kill()
        part.wait()


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Turn SIGTERM and a closed terminal into what Ctrl-C is, so that everything is ended.

    Ctrl-C too: a shell that starts a program in the background makes it ignore that. A second
    signal does not interrupt the ending, which would leave Ray processes behind.
    """
    told = False

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal told
        if told:
            _say("still ending everything")
            return
        told = True
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="schedulemesh up",
        description="Run a control plane and Ray clusters on this machine, until Ctrl-C.",
    )
    add = parser.add_argument
    add("--clusters", type=_count, default=2, metavar="N", help="how many [%(default)s]")
    add("--cpus", type=_count, default=2, metavar="N", help="cores of each [%(default)s]")
    add("--listen", default="127.0.0.1:7420", metavar="HOST:PORT", help="[%(default)s]")
    add("--state-dir", type=Path, default=default_state_dir(), metavar="DIR", help="[%(default)s]")
    return parser


def _missing_ray() -> str | None:
    """Return what to do about Ray, when it is not installed beside this Python."""
    found = importlib.util.find_spec("ray")
    # A folder that happens to be called `ray` has no file to load.
    if found is not None and found.origin is not None:
        return None
    return f"{sys.executable} has no Ray; install it with `pip install 'schedulemesh[agent]'`"


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= _MOST:
        message = f"must be between 1 and {_MOST}"
        raise argparse.ArgumentTypeError(message)
    return number


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _next_steps(mesh: LocalMesh) -> str:
    first = mesh.sites[0].name
    return f"""
Up: {mesh.url}, admin token in {mesh.state_dir / "admin.token"}

Try in another terminal:
  schedulemesh cluster ls
  schedulemesh submit --wait --tag {first} -- python -c 'print("hello")'
  schedulemesh ps --all

Or in Python:
  import schedulemesh
  with schedulemesh.connect() as mesh:
      print(mesh.submit(pow, 2, 10).result())

Ctrl-C ends everything."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `schedulemesh up`.

    Args:
        arguments: The command line, without the program.
    """
    args = _parser().parse_args(arguments)
    if (missing := _missing_ray()) is not None:
        _say(f"schedulemesh up: {missing}")
        return 1
    sites = default_sites(args.clusters, args.cpus)
    mesh = LocalMesh(sites, state_dir=args.state_dir, listen=args.listen, tell=_say)
    try:
        with stopped_by_signals(), mesh:
            _say(_next_steps(mesh))
            while (dead := mesh.dead()) is None:
                time.sleep(1)
            _say(f"{dead} ended by itself; {mesh.story(dead)}")
            return 1
    except KeyboardInterrupt:
        _say("everything has ended")
        return 0
    except (UpError, LocalClusterError) as error:
        _say(f"schedulemesh up: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
