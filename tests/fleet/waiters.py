"""A process that awaits the results of some jobs: `waiters.py DSN ID ID ...`.

It says `waiting` once all are awaited, and prints each result as a line of JSON, in the order given, once all are there.
"""

from __future__ import annotations

import asyncio
import json
import sys

from backfill import BackfillClient


async def main(dsn: str, ids: list[int]) -> None:
    """Await them together."""
    async with BackfillClient(dsn, max_size=3) as client:
        waiting = [asyncio.ensure_future(client.result(number)) for number in ids]
        await asyncio.wait(waiting, timeout=0.5)
        print("waiting", flush=True)
        print(json.dumps(await asyncio.gather(*waiting)), flush=True)


asyncio.run(main(sys.argv[1], [int(word) for word in sys.argv[2:]]))
