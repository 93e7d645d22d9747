"""A process that awaits the results of some jobs: `waiters.py DSN ID ID ...`.

It prints their results as a list in JSON, in the order given, once all are there.
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
        print(json.dumps(await asyncio.gather(*waiting)), flush=True)


asyncio.run(main(sys.argv[1], [int(word) for word in sys.argv[2:]]))
