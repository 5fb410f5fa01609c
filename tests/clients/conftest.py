"""Fixtures of the edges: an example policy, served over HTTP and gRPC."""

from __future__ import annotations

from tests.edge.conftest import running, served

__all__ = ["running", "served"]
