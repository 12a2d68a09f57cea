"""The whole story in two minutes: `make demo`.

Starts two Ray clusters and a control plane on this machine, sends work to both, kills the control
plane in the middle with `kill -9`, and shows that nothing was lost and nothing ran twice.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import schedulemesh
from schedulemesh.up import LocalMesh, Site, stopped_by_signals

if TYPE_CHECKING:
    from schedulemesh import ActorHandle, Client, Future

SITES = [
    Site("linux", tags=("linux", "x86_64"), labels={"tier": "gold"}, prefer=True),
    Site("mac", tags=("macos", "arm64"), labels={"tier": "silver"}),
]
PIECES = 60
PIECE_S = 0.25


# What runs on the clusters: ordinary Python that knows nothing of Ray or of ScheduleMesh.


def where() -> str:
    """Say which cluster runs this."""
    return os.environ["SCHEDULEMESH_CLUSTER"]


def divide(a: int, b: int) -> float:
    """Fail, when asked to divide by zero."""
    return a / b


def piece_of_work(number: int, ledger: str) -> str:
    """Take a while, then leave one line in a file as the proof of having run to the end."""
    time.sleep(PIECE_S)
    with Path(ledger).open("a", encoding="utf-8") as file:
        file.write(f"{number}\n")
    return where()


class Tally:
    """Counts, and remembers where it lives: an actor keeps its state on one cluster."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, amount: int) -> tuple[int, str]:
        """Add, and return the sum and the cluster."""
        self.count += amount
        return self.count, where()


# The story.


def step(title: str) -> None:
    """Begin a chapter."""
    print(f"\n== {title}")


def routing(client: Client) -> None:
    """Send functions where their tags, labels and scores say."""
    step("Functions go where they are allowed to, and of those places to the best")
    by_tag = client.options(tags=["macos"], name="by tag").submit(where)
    by_label = client.options(labels={"tier": "gold"}, name="by label").submit(where)
    by_score = client.options(name="by score").submit(where)
    print(f"tag macos          -> {by_tag.result()}")
    print(f"label tier=gold    -> {by_label.result()}")
    print(f"nothing said       -> {by_score.result()}, which is preferred")


def state(client: Client) -> ActorHandle[Tally]:
    """Start an actor, and use it."""
    step("An actor lives on one cluster and keeps its state there")
    tally = client.options(tags=["arm64"], name="tally").actor(Tally)
    for amount in (1, 10, 100):
        count, cluster = tally.add(amount)
        print(f"add({amount:>3}) = {count:>3} on {cluster}")
    return tally


def failure(client: Client) -> None:
    """Let a function fail, and see its exception arrive."""
    step("An exception comes home as what it was, with the remote traceback as its cause")
    try:
        client.options(name="failing").submit(divide, 1, 0).result()
    except ZeroDivisionError as error:
        print(f"{type(error).__name__}: {error}")
        cause = str(error.__cause__).strip().splitlines()
        print("\n".join(f"    {line}" for line in cause[-4:]))


def job(client: Client) -> None:
    """Run a whole Ray job."""
    step("A job is a shell command with Ray's own driver")
    program = 'import ray; ray.init(); print("cores here:", ray.cluster_resources()["CPU"])'
    command = f"python -c '{program}'"
    future = client.options(cluster="mac", name="job").submit_job(command)
    future.result()
    print(next(line for line in future.logs().splitlines() if line.startswith("cores here")))


def more_than_fits(client: Client, mesh: LocalMesh, ledger: Path) -> None:
    """Submit far more than there is room for, and kill the control plane in the middle."""
    step(f"{PIECES} tasks for 4 cores: they queue, drain, and survive a kill -9")
    worker = client.options(name="piece")
    futures = [worker.submit(piece_of_work, number, str(ledger)) for number in range(PIECES)]
    client.flush()
    killed = False
    while not all(future.done() for future in futures):
        done = sum(future.done() for future in futures)
        progress(done)
        if not killed and done > PIECES // 3:
            killed = True
            progress(done, "  kill -9 of the control plane …\n")
            mesh.kill_control_plane()
            time.sleep(1)
            mesh.start_control_plane()
        time.sleep(0.1)
    progress(PIECES, "\n")
    check(futures, ledger)


def check(futures: list[Future[str]], ledger: Path) -> None:
    """See that every piece has its result, and ran to the end once."""
    places = Counter(future.result() for future in futures)
    runs = Counter(int(line) for line in ledger.read_text(encoding="utf-8").split())
    lost = set(range(PIECES)) - set(runs)
    twice = [number for number, times in runs.items() if times > 1]
    print(f"results: {sum(places.values())} ({dict(places)})")
    print(f"lost: {len(lost)}, run twice to completion: {len(twice)}")
    if lost or twice:
        sys.exit(f"lost {sorted(lost)}, twice {sorted(twice)}: this must not be")


def progress(done: int, after: str = "") -> None:
    """Draw a bar on a terminal, or nothing but the words elsewhere."""
    if sys.stdout.isatty():
        width = 40 * done // PIECES
        print(f"\r[{'#' * width}{'.' * (40 - width)}] {done}/{PIECES}{after}", end="", flush=True)
    elif after:
        print(f"{done}/{PIECES}{after}", end="", flush=True)


def summary(client: Client) -> None:
    """Print what ran where."""
    step("What ran where")
    tasks = list(client.tasks())
    rows = Counter(
        (task["name"] or task["kind"], task["cluster"] or "-", task["phase"]) for task in tasks
    )
    print(f"{'WHAT':<12}{'CLUSTER':<10}{'PHASE':<12}{'TASKS':>5}")
    for (what, cluster, phase), number in sorted(rows.items()):
        print(f"{what:<12}{cluster:<10}{phase:<12}{number:>5}")


def main() -> None:
    """Tell the story."""
    began = time.monotonic()
    step("Two Ray clusters, a control plane, an agent in each cluster")
    with stopped_by_signals(), LocalMesh(SITES, tell=print) as mesh:
        ledger = mesh.state_dir / "ledger"
        with schedulemesh.connect(state_dir=mesh.state_dir) as client:
            routing(client)
            tally = state(client)
            failure(client)
            job(client)
            more_than_fits(client, mesh, ledger)
            step("The actor is still there, with its state")
            count, cluster = tally.add(1000)
            print(f"add(1000) = {count} on {cluster}")
            tally.kill()
            schedulemesh.wait([tally.future])
            summary(client)
        step("Ending everything")
    print(f"done in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
