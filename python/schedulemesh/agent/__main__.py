"""The command line of the agent: `python -m schedulemesh.agent`, also `schedulemesh agent`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schedulemesh.agent.settings import Settings

EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_NO_RAY = 4
EXIT_NO_LISTEN = 5

DESCRIPTION = """\
Serve one Ray cluster: link it to a ScheduleMesh control plane, run what that sends, report.

Run it on any node of the cluster, with the Python that has Ray. By default it dials the control
plane, so that the cluster needs no open port. Where only the control plane can dial, use --listen.
"""
EPILOG = """\
examples:
  python -m schedulemesh.agent --server https://mesh.example.org --cluster east --token-file t
  python -m schedulemesh.agent --cluster east --listen 10.0.0.5:8701 --token-file t

The token is printed by `schedulemesh cluster token NAME`.

Ends with 0 after SIGTERM or SIGINT (actors and jobs go on, functions are started elsewhere),
2 when the command line is wrong, 3 when the control plane refuses it for good or has removed the
cluster, 4 when Ray does not answer, 5 when it cannot listen.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the agent until it is told to end; return the exit code."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    logging.basicConfig(
        level=given.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    token = read_token(parser, given)
    from schedulemesh.agent.settings import Settings  # noqa: PLC0415 - after the usage is right

    settings = Settings(
        cluster=given.cluster,
        token=token,
        server=given.server,
        listen=given.listen,
        ray_address=given.ray_address,
        idle_s=given.idle_seconds,
    )
    return serve(settings)


def serve(settings: Settings) -> int:
    """Connect to Ray and run the agent."""
    if not connect_ray(settings.ray_address):
        return EXIT_NO_RAY
    import ray  # noqa: PLC0415 - see above

    try:
        return asyncio.run(run_until_told(settings))
    finally:
        ray.shutdown()


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="schedulemesh agent",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--server", type=server_url, metavar="URL", help="the control plane to dial")
    way.add_argument(
        "--listen", type=listen_address, metavar="HOST:PORT", help="wait to be dialled instead"
    )
    parser.add_argument(
        "--cluster", required=True, type=cluster_name, metavar="NAME", help="this cluster's name"
    )
    parser.add_argument(
        "--token-file", metavar="FILE", help="file with the token (default: $SCHEDULEMESH_TOKEN)"
    )
    parser.add_argument(
        "--ray-address",
        default="auto",
        metavar="ADDR",
        help="HOST:PORT of the head, `auto` for the Ray on this node, `local` to start one "
        "(default: auto)",
    )
    parser.add_argument(
        "--idle-seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="how long a warm worker is kept without work (default: 10)",
    )
    parser.add_argument(
        "--log-level", default="info", choices=["debug", "info", "warning", "error"]
    )
    return parser


def server_url(text: str) -> str:
    """Check a control plane's URL."""
    if re.fullmatch(r"(https?|wss?)://[^/\s]+(/\S*)?", text) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a URL such as http://127.0.0.1:8700 or wss://mesh.example.org"
        )
    return text


def listen_address(text: str) -> tuple[str, int]:
    """Check an address to listen at."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:  # noqa: PLR2004 - the last port
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 10.0.0.5:8701")
    return host.strip("[]"), int(port)


def cluster_name(text: str) -> str:
    """Check a cluster's name as far as the agent can."""
    if not text or len(text) > 128 or text != text.strip():  # noqa: PLR2004 - as the server has it
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a cluster")
    return text


def read_token(parser: argparse.ArgumentParser, given: argparse.Namespace) -> str:
    """Find the token, or end with the reason."""
    if given.token_file:
        try:
            token = Path(given.token_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            parser.error(f"--token-file {given.token_file}: {error.strerror}")
    else:
        token = os.environ.get("SCHEDULEMESH_TOKEN", "").strip()
    if not token:
        parser.error(
            "there is no token: give --token-file or set SCHEDULEMESH_TOKEN "
            "(`schedulemesh cluster token NAME` prints it)"
        )
    # What runs on the cluster has no business with it.
    os.environ.pop("SCHEDULEMESH_TOKEN", None)
    return token


def connect_ray(address: str) -> bool:
    """Become a driver of the cluster."""
    try:
        import ray  # noqa: PLC0415 - may be missing
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"error: this Python ({sys.executable}) has no Ray: {error}\n"
            "  fix: run the agent with the Python of the Ray cluster\n"
        )
        return False
    from schedulemesh.agent.settings import NAMESPACE  # noqa: PLC0415 - see `main`

    if address == "local":
        # Left alone, a local Ray turns on token authentication for every other one on the machine.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,
            configure_logging=False,
        )
    except Exception as error:  # noqa: BLE001 - Ray raises all sorts of things here
        sys.stderr.write(
            f"error: Ray at {address!r} does not answer: {error}\n"
            "  fix: check --ray-address, and that `ray status` works on this node\n"
        )
        return False
    return True


async def run_until_told(settings: Settings) -> int:
    """Run the agent; end on SIGTERM and SIGINT."""
    from schedulemesh.agent.agent import Agent, RayGoneError  # noqa: PLC0415 - imports Ray
    from schedulemesh.agent.link import Refused  # noqa: PLC0415 - imports aiohttp

    running = asyncio.ensure_future(Agent(settings).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await running
    except Refused as refused:
        sys.stderr.write(f"error: {refused}\n")
        return EXIT_REFUSED
    except RayGoneError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_NO_RAY
    except OSError as error:
        sys.stderr.write(f"error: cannot listen: {error}\n")
        return EXIT_NO_LISTEN
    return 0


if __name__ == "__main__":
    sys.exit(main())
