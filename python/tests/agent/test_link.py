"""The link: resuming, being refused, being dialled, and what is said of the nodes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from agent.fake_control_plane import TOKEN, FakeControlPlane

if TYPE_CHECKING:
    from agent.conftest import StartAgent
    from schedulemesh.local import LocalCluster

pytestmark = pytest.mark.ray

STRANGER = """
import sys, ray, time
ray.init(address=sys.argv[1], log_to_driver=False)
@ray.remote(num_cpus=1)
def hold():
    time.sleep(600)
held = hold.remote()
print("holding", flush=True)
sys.stdin.read()
"""


def double(number: int) -> int:
    return 2 * number


def touch_and_wait(path: str, flag: str) -> str:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("x")
    while not Path(flag).exists():
        time.sleep(0.005)
    return "done"


def test_broken_link_loses_and_doubles_nothing(
    lonely: FakeControlPlane, start_agent: StartAgent, tmp_path: Path
) -> None:
    start_agent("--server", lonely.url)
    lonely.wait_linked()
    flag, log = tmp_path / "flag", tmp_path / "log"
    lonely.acking = False
    keys = lonely.functions(double, [(number,) for number in range(200)], lease=1)
    assert lonely.values(keys) == [2 * number for number in range(200)]
    (long,) = lonely.functions(touch_and_wait, [(str(log), str(flag))], lease=2)
    lonely.wait(lambda: long in lonely.started)
    lonely.cut()
    lonely.wait(lambda: len(lonely.hellos) == 2)
    hello = lonely.hellos[1]
    assert hello["incarnation"] == lonely.hellos[0]["incarnation"]
    held = {(entry["task"], entry["attempt"]) for entry in hello["held"]}
    assert held >= {*keys, long}
    # Nothing was acknowledged, so everything comes again, under the same numbers.
    lonely.wait(lambda: len(lonely.repeated) >= 201)
    lonely.acking = True
    flag.touch()
    assert lonely.end_of(long).value() == "done"
    assert log.read_text() == "x"
    assert lonely.gaps == []
    lonely.cut()
    lonely.wait(lambda: len(lonely.hellos) == 3)
    held = {(entry["task"], entry["attempt"]) for entry in lonely.hellos[2]["held"]}
    assert held.isdisjoint({*keys, long})


def test_work_goes_on_while_the_control_plane_is_away(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    flag, log = tmp_path / "flag", tmp_path / "log"
    with FakeControlPlane() as first:
        port = first.port
        start_agent("--server", first.url)
        first.wait_linked()
        (key,) = first.functions(touch_and_wait, [(str(log), str(flag))])
        first.wait(lambda: key in first.started)
    flag.touch()
    with FakeControlPlane(port=port) as second:
        second.wait_linked()
        assert second.end_of(key).value() == "done"
        assert log.read_text() == "x"


def test_wrong_token_ends_the_agent(lonely: FakeControlPlane, start_agent: StartAgent) -> None:
    agent = start_agent("--server", lonely.url, token="wrong")  # noqa: S106 - for tests
    assert agent.wait() == 3
    assert "[UNAUTHENTICATED] the control plane at ws://127.0.0.1" in agent.said()
    assert "schedulemesh cluster token NAME" in agent.said()


def test_old_protocol_ends_the_agent(lonely: FakeControlPlane, start_agent: StartAgent) -> None:
    lonely.refuse = {"code": "UPGRADE_NEEDED", "message": "too old", "remedy": "upgrade the agent"}
    agent = start_agent("--server", lonely.url)
    assert agent.wait() == 3
    assert "[UPGRADE_NEEDED] too old\n  fix: upgrade the agent" in agent.said()


def test_taken_cluster_is_tried_again(lonely: FakeControlPlane, start_agent: StartAgent) -> None:
    lonely.refuse = {"code": "CLUSTER_TAKEN", "message": "taken", "remedy": "stop the other"}
    agent = start_agent("--server", lonely.url)
    lonely.wait(lambda: len(lonely.hellos) == 1)
    lonely.refuse = None
    lonely.wait_linked(2)
    assert "[CLUSTER_TAKEN] taken" in agent.said()


def test_agent_that_listens(
    lonely: FakeControlPlane, start_agent: StartAgent, tmp_path: Path
) -> None:
    agent = start_agent("--listen", "127.0.0.1:0")
    deadline = time.monotonic() + 20
    while "listening at ws://" not in agent.said():
        assert time.monotonic() < deadline, agent.said()
    address = agent.said().split("listening at ws://")[1].split("/")[0]
    with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
        lonely.dial(address, "wrong")
    lonely.dial(address)
    lonely.wait_linked()
    assert lonely.values(lonely.functions(double, [(4,)])) == [8]
    # A control plane that lost its link dials again; the new link takes over.
    flag, log = tmp_path / "flag", tmp_path / "log"
    (key,) = lonely.functions(touch_and_wait, [(str(log), str(flag))])
    lonely.wait(lambda: key in lonely.started)
    lonely.dial(address)
    lonely.wait(lambda: len(lonely.hellos) == 2)
    flag.touch()
    assert lonely.end_of(key).value() == "done"


def test_nodes_and_what_strangers_use(
    plane: FakeControlPlane, ray_clusters: list[LocalCluster]
) -> None:
    (node,) = plane.nodes
    assert node["address"] == ray_clusters[0].address.split(":")[0]
    assert node["labels"] == {"zone": "east", "tier": "gold"}
    assert set(node["total"]) == {"CPU", "memory", "pool_a"}
    assert (node["total"]["CPU"], node["total"]["pool_a"]) == (2.0, 4.0)
    # Our own worker, busy or warm, is nobody's but ours.
    frames = plane.node_frames
    assert plane.values(plane.functions(double, [(1,)])) == [2]
    with subprocess.Popen(
        [sys.executable, "-c", STRANGER, ray_clusters[0].address],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as stranger:
        plane.wait(lambda: plane.nodes[0]["foreign"] == {"CPU": 1.0})
        stranger.communicate(timeout=30)
    plane.wait(lambda: plane.nodes[0]["foreign"] == {})
    # Came and went: two frames, and none for every sample in between.
    assert plane.node_frames - frames <= 4


def test_lost_link_is_noticed_by_silence(lonely: FakeControlPlane, start_agent: StartAgent) -> None:
    lonely.beating = False
    start_agent("--server", lonely.url)
    lonely.wait_linked()
    lonely.wait(lambda: len(lonely.hellos) >= 2, 15)


def test_ends_cleanly_when_told(lonely: FakeControlPlane, start_agent: StartAgent) -> None:
    agent = start_agent("--server", lonely.url)
    lonely.wait_linked()
    assert lonely.values(lonely.functions(double, [(1,)])) == [2]
    assert agent.stop() == 0
    assert "Traceback" not in agent.said()
    assert TOKEN not in agent.said()


def test_removed_cluster_ends_the_agent(lonely: FakeControlPlane, start_agent: StartAgent) -> None:
    lonely.refuse = {"code": "UNKNOWN_CLUSTER", "message": "not registered", "remedy": "add it"}
    agent = start_agent("--server", lonely.url)
    # It may be added yet; once it was known, it was removed.
    lonely.wait(lambda: len(lonely.hellos) == 1)
    lonely.refuse = None
    lonely.wait_linked(2)
    lonely.refuse = {"code": "UNKNOWN_CLUSTER", "message": "not registered", "remedy": "add it"}
    lonely.cut()
    assert agent.wait() == 3
    assert "[UNKNOWN_CLUSTER] not registered" in agent.said()
