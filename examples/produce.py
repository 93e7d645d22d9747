"""A producer: one job, one with options, many at once, and one within a transaction of the program's own.

Run it from this folder, with DATABASE_URL set and `backfill migrate` done: `python produce.py`.
"""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

import psycopg
from app.jobs import SendEmail, resize_image, send_email

from backfill import BackfillClient, Priority, Queue

client = BackfillClient()  # DATABASE_URL; no connection is made before the first use


async def main() -> None:
    """Enqueue a few jobs."""
    welcome = send_email.job(SendEmail("ada@example.com", "Welcome!", "Thanks."))
    async with client:
        outcome = await client.enqueue(welcome, job_key="welcome:ada", priority=Priority.FAST_HIGH)
        print(f"{outcome.status}: job {outcome.id}")
        await client.enqueue("resize_image", "ada.png", queue=Queue.serial_for("user", "ada"), max_attempts=3)
        await client.enqueue(send_email.job(SendEmail("ada@example.com", "How is it?", "...")), delay=timedelta(days=7))
        images = (f"image-{number}.png" for number in range(1_000))
        written = await client.enqueue_bulk(resize_image, images, priority=Priority.BULK_LOW)
        print(f"{written.written} jobs in bulk")
        await enqueue_with_an_order(42)


async def enqueue_with_an_order(order: int) -> None:
    """A job that exists if, and only if, the order does."""
    receipt = send_email.job(SendEmail("ada@example.com", f"Order {order}", "On its way."))
    async with await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"]) as connection:
        await connection.execute("create table if not exists orders (id bigint primary key)")
        await connection.execute("insert into orders values (%s) on conflict do nothing", [order])
        await client.enqueue(receipt, connection=connection)


if __name__ == "__main__":
    asyncio.run(main())
