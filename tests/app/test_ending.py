"""The end of a service that cannot be closed."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio

from wavserve.app.ending import Ending


async def main():
    ending = Ending(close_within_s=0.2)
    asyncio.get_running_loop().call_later(0.1, ending.on_death, "a part")
    await ending.close(asyncio.Event().wait())


asyncio.run(main())
"""


def test_a_part_that_dies_while_the_service_closes_ends_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "did not close" in ended.stderr
