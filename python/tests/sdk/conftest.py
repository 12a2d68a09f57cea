"""Fixtures of the SDK's tests: a fake control plane and a client of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from schedulemesh import Client
from sdk.fake_server import TOKEN, FakeServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client(server.url, TOKEN) as connected:
        yield connected
