"""The clients meet the edges' served example policy."""

from __future__ import annotations

from tests.edge.conftest import running, served

__all__ = ["running", "served"]
