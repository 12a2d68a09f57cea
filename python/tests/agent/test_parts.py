"""The agent's parts without Ray: frames, reports, nodes, worker code, command line."""

from __future__ import annotations

import io
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
from schedulemesh.agent import wire
from schedulemesh.agent.code import Code
from schedulemesh.agent.link import link_url
from schedulemesh.agent.names import Names
from schedulemesh.agent.nodes import Nodes, is_public
from schedulemesh.agent.outbox import FRAME_ITEMS, Outbox
from schedulemesh.agent.work import Outputs
from schedulemesh.agent.worker.blackbox import END, BlackBox, read_boxes, read_records
from schedulemesh.agent.worker.codec import pack, pack_exception, unpack
from schedulemesh.agent.worker.lane import bounded, user_traceback
from schedulemesh.agent.worker.output import Tail
from schedulemesh.agent.worker.parcel import unwrap, wrap

ROOT = Path(__file__).resolve().parents[2]


def read(frame: bytes | None) -> Any:
    assert frame is not None
    return msgpack.unpackb(frame)


def outbox() -> tuple[Outbox, list[wire.Key]]:
    ended: list[wire.Key] = []
    return Outbox(lambda: None, ended.append), ended


@pytest.mark.parametrize("count", [1, 15, 16, 255, FRAME_ITEMS])
def test_reports_of_every_number_of_items_are_valid_frames(count: int) -> None:
    box, _ = outbox()
    for task in range(count):
        box.add((task, 1), "started", end=False)
    frame = read(box.next_frame())
    assert frame["report"]["seq"] == 1
    assert [item["task"] for item in frame["report"]["items"]] == list(range(count))
    assert box.next_frame() is None


def test_outbox_forgets_what_is_acknowledged_and_repeats_the_rest() -> None:
    box, ended = outbox()
    for task in range(4):
        box.add((task, 1), "returned", end=True)
    assert read(box.next_frame())["report"]["seq"] == 1
    box.ack(2)
    assert ended == [(0, 1), (1, 1)]
    box.ack(1)
    assert len(box) == 2
    box.rewind()
    box.add((4, 1), "started", end=False)
    again = read(box.next_frame())["report"]
    assert (again["seq"], [item["task"] for item in again["items"]]) == (3, [2, 3, 4])


def test_outbox_bounds_its_frames() -> None:
    box, _ = outbox()
    result = {"finished": {"run_us": 1, "result": {"inline": b"x" * 400_000}}}
    for task in range(4):
        box.add((task, 1), result, end=True)
    sizes = []
    while frame := box.next_frame():
        sizes.append(len(read(frame)["report"]["items"]))
    assert sizes == [2, 2]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xc1", "1 bytes are not MessagePack"),
        (b"\x01", "expected one of several kinds, got int"),
        (msgpack.packb({"a": 1, "b": 2}), "expected one of several kinds, got dict"),
    ],
)
def test_what_is_no_frame_is_said(data: bytes, message: str) -> None:
    with pytest.raises(wire.BadFrame, match=message):
        wire.decode(data)


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("http://h:1", "ws://h:1/v1/link/agent"),
        ("https://h/", "wss://h/v1/link/agent"),
        ("ws://h/base", "ws://h/base/v1/link/agent"),
        ("wss://h/v1/link/agent", "wss://h/v1/link/agent"),
    ],
)
def test_link_url(server: str, url: str) -> None:
    assert link_url(server) == url


@pytest.mark.parametrize("server", ["h:1", "ftp://h", "http://"])
def test_link_url_of_no_server(server: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a control plane"):
        link_url(server)


def test_internal_resources_are_hidden() -> None:
    group = "CPU_group_0_" + "a" * 32
    hidden = ["node:10.0.0.1", "node:__internal_head__", "object_store_memory", group]
    hidden += ["CPU_group_" + "a" * 32, "bundle_group_" + "a" * 32]
    assert [name for name in hidden if is_public(name)] == []
    assert all(map(is_public, ["CPU", "GPU", "memory", "pool_a", "my_group", "accelerator_type:A"]))


def sample(nodes: Nodes, free: float, *, alive: bool = True) -> bool:
    node = {
        "NodeID": "n1",
        "Alive": alive,
        "NodeManagerAddress": "10.0.0.1",
        "Resources": {"CPU": 4.0, "node:10.0.0.1": 1.0},
        "Labels": {"ray.io/node-id": "n1", "zone": "east"},
    }
    return nodes.update([node], {"n1": {"CPU": free}})


def test_strangers_count_when_seen_twice_and_only_changes_are_told() -> None:
    held = {"CPU": 1.0}
    nodes = Nodes(lambda _node: held)
    assert sample(nodes, 3.0)
    assert nodes.frame[0]["labels"] == {"zone": "east"}
    assert nodes.frame[0]["total"] == {"CPU": 4.0}
    assert not sample(nodes, 1.0)
    assert sample(nodes, 1.5)
    assert nodes.frame[0]["foreign"] == {"CPU": 1.5}
    assert sample(nodes, 3.0)
    assert nodes.frame[0]["foreign"] == {}
    assert not sample(nodes, 3.0)
    assert sample(nodes, 3.0, alive=False)
    assert nodes.frame == []


def test_outputs_are_bounded_in_total() -> None:
    outputs = Outputs(limit=10)
    outputs.keep((1, 1), "12345")
    outputs.keep((2, 1), "12345")
    outputs.keep((3, 1), "1")
    assert [outputs.get((task, 1)) for task in (1, 2, 3)] == [None, "12345", "1"]


def test_names_carry_whose_they_are() -> None:
    names, others = Names("secret", "east"), Names("secret", "west")
    name = names.of((7, 2))
    assert re.fullmatch(r"sm-[0-9a-f]{8}-7-2", name)
    assert names.read(name) == (7, 2)
    assert others.read(name) is None
    assert Names("other", "east").read(name) is None
    assert [names.read(text) for text in ("", "sm-7-2", name + "x")] == [None] * 3


def test_code_is_bounded_but_what_is_needed_stays() -> None:
    code = Code(bytes_max=10, count_max=3)
    for digest in "abc":
        code.add(digest, b"1234")
    assert code.full
    code.use("a")
    code.trim({"b"})
    assert not code.full
    assert [digest in code for digest in "abc"] == [True, True, False]
    assert [code.dropped(digest) for digest in "abcd"] == [False, False, True, False]
    code.add("c", b"")
    assert not code.dropped("c")
    code.add("d", b"")
    code.trim(set("abcd"))
    assert code.full
    code.trim(set())
    assert code.dropped("b")
    code.linked()
    assert not code.dropped("b")


def test_parcels_are_bytes_unless_only_ray_can_carry_them() -> None:
    batch = (1, 2, {"digest": b"code"}, [(7, 1, "digest", b"x"), (8, 1, "digest", None)])
    assert isinstance(wrap(batch), bytes)
    assert unwrap(wrap(batch)) == batch
    with_reference = (1, 2, {}, [(7, 1, "digest", [object()])])
    assert wrap(with_reference) is with_reference
    assert unwrap(with_reference) is with_reference


def test_tail_keeps_the_end() -> None:
    tail = Tail(5)
    for text in ("abc", "def", "gh"):
        tail.add(text)
    assert tail.text() == "defgh"
    tail.add("0123456789")
    assert tail.text() == "56789"


def test_black_box_tells_what_was_done_even_when_torn() -> None:
    box = BlackBox()
    box.begin(1)
    box.add((7, 1, "finished", 5, b"x", None, ""))
    box.add((8, 1, "finished", 5, (10, [object()]), None, ""))
    box.begin(2)
    data = Path(box.paths[1]).read_bytes()
    assert len(read_records(data)) == 3
    # Killed while the last one was written, over an older one.
    assert len(read_records(data[:-12])) == 2
    assert len(read_records(data[:-12] + data[:12])) == 2
    found = read_boxes(box.paths, remove=True)
    assert found is not None
    begun, results = found
    assert sorted(begun) == [1, 2]
    # The second one lay in the object store, and with the worker it is lost.
    assert [result[:3] for result in results] == [(7, 1, "finished"), (8, 1, "lost")]
    assert read_boxes(box.paths, remove=False) is None


def test_black_box_forgets_the_batch_that_it_writes_over() -> None:
    box = BlackBox()
    for batch in (1, 2, 3):
        box.begin(batch)
        for task in range(4 - batch):
            box.add((task, batch, "finished", 5, b"x", None, ""))
    # As if the end of the newest one had not been written: older records of the same size follow.
    data = Path(box.paths[1]).read_bytes()
    ended = data.index(END, len(data) // 2 - len(END))
    assert [record[:2] for record in read_records(data)] == [("begun", 3), (0, 3)]
    assert [record[:2] for record in read_records(data[:ended] + data[ended + 8 :])] == [
        ("begun", 3),
        (0, 3),
    ]
    box.begin(4)
    box.add((0, 4, "finished", 5, bytes(box.RECORD_MAX - 100), None, ""))
    for _ in range(20):
        box.add((0, 4, "finished", 5, bytes(box.RECORD_MAX - 100), None, ""))
    assert Path(box.paths[0]).stat().st_size > box.KEPT_MAX
    box.begin(6)
    assert Path(box.paths[0]).stat().st_size < 100
    read_boxes(box.paths, remove=True)


def test_exceptions_are_pickled_with_their_causes_or_not_at_all() -> None:
    error = LookupError("outer")
    error.__cause__ = ValueError("inner")
    found = pickle.loads(pack_exception(error, 10_000) or b"")
    assert isinstance(found.__cause__, ValueError)

    class Awkward(Exception):  # noqa: N818 - a user may call it so
        def __init__(self, left: str, right: str) -> None:
            super().__init__(left + right)

    assert pack_exception(Awkward("a", "b"), 10_000) is None
    assert pack_exception(ValueError("x" * 10_000), 1_000) is None


def test_traceback_of_an_exception_that_cannot_be_printed() -> None:
    class Mute(Exception):  # noqa: N818 - a user may call it so
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert "Mute" in user_traceback(Mute())


def test_bounded_cuts_the_middle() -> None:
    assert bounded("short", 10) == "short"
    assert bounded("a" * 50 + "b" * 50, 10).startswith("aaaaa\n... 90 characters left out")


def test_small_results_travel_inline() -> None:
    packed = pack({"a": [1, 2]}, 1_000)
    assert isinstance(packed, bytes)
    assert unpack(packed) == {"a": [1, 2]}
    assert unpack(None) == ((), {})
    assert io.BytesIO(packed).read(1) == b"\x80"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cluster", "c"], "one of the arguments --server --listen is required"),
        (["--server", "h:1", "--cluster", "c"], "'h:1' is not a URL such as http://127.0.0.1:8700"),
        (["--listen", "h", "--cluster", "c"], "'h' is not HOST:PORT, such as 10.0.0.5:8701"),
        (["--server", "http://h", "--cluster", " "], "' ' is not the name of a cluster"),
        (["--server", "http://h", "--cluster", "c"], "there is no token: give --token-file or set"),
        (
            ["--server", "http://h", "--cluster", "c", "--token-file", "/no/such"],
            "--token-file /no/such: No such file or directory",
        ),
    ],
)
def test_wrong_command_lines(arguments: list[str], message: str) -> None:
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [sys.executable, "-m", "schedulemesh.agent", *arguments],
        capture_output=True,
        text=True,
        env=env,
        check=False,
        timeout=30,
    )
    assert ended.returncode == 2
    assert message in ended.stderr


def test_agent_imports_nothing_of_the_sdk() -> None:
    code = (
        "import sys, schedulemesh.agent.agent\n"
        "print([m for m in sys.modules if m.startswith('schedulemesh.')"
        " and not m.startswith('schedulemesh.agent')])"
    )
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/tmp"}  # noqa: S108
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    assert ended.stdout.strip() == "[]"


def test_results_of_a_worker_without_cloudpickle_can_be_read_without_ray() -> None:
    make = (
        "import sys; sys.modules['cloudpickle'] = None\n"
        "from schedulemesh.agent.worker.codec import load_cloudpickle, pack\n"
        "del sys.modules['cloudpickle']; sys.meta_path.insert(0, type('No', (), {'find_spec': "
        "staticmethod(lambda n, *a: (_ for _ in ()).throw(ModuleNotFoundError(n)) "
        "if n == 'cloudpickle' else None)}))\n"
        "load_cloudpickle(); sys.stdout.buffer.write(pack(lambda number: number + 1, 10**6))"
    )
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/tmp"}  # noqa: S108
    made = subprocess.run([sys.executable, "-c", make], capture_output=True, check=True, env=env)
    assert b"ray" not in made.stdout
    assert pickle.loads(made.stdout)(1) == 2
