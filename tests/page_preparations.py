"""What the reader of a page has before its first example, and what ends after the last one: for `page_runner`.

An example shows what it is about, and leaves out what its reader has anyway, such as a client. Here is the rest of each
page's program, in the page's own names.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Preparation(NamedTuple):
    """Code around a page's examples, in the same module."""

    before: str
    after: str = ""


_CLIENT: Final = """
from backfill import BackfillClient

client = BackfillClient()
"""
_CLOSED: Final = """
await client.close()
"""

PREPARATIONS: Final[dict[str, Preparation]] = {
    "cleanup": Preparation(_CLIENT, _CLOSED),
    "counters": Preparation(_CLIENT, _CLOSED),
    "producing": Preparation(_CLIENT, _CLOSED),
    "unique": Preparation(_CLIENT, _CLOSED),
    # One job has failed for good.
    "dead-letters": Preparation(
        f"""{_CLIENT}
from backfill import TaskRegistry, WorkerConfig, WorkerRunner

tasks = TaskRegistry()


@tasks.task("send_email")
async def send_email(email: dict[str, str]) -> None:
    raise TimeoutError("no answer")


await client.enqueue(send_email.job({{"to": "user@exmaple.com"}}), max_attempts=1)
await WorkerRunner(WorkerConfig(), tasks).process_available_jobs()
""",
        f"""
assert [group.error_type for group in await client.dlq_groups()] == []
{_CLOSED}""",
    ),
    # A worker that runs the jobs, and a table of the program's own.
    "sync": Preparation(
        """
import os
import subprocess
import sys

import psycopg

with psycopg.connect(os.environ["DATABASE_URL"]) as setup:
    setup.execute("create table orders (id bigint)")
worker = subprocess.Popen([sys.executable, "-m", "backfill", "worker", "parcels.jobs:tasks"])
""",
        """
client.close()
worker.terminate()
assert worker.wait(60) == 0
with psycopg.connect(os.environ["DATABASE_URL"]) as reader:
    assert reader.execute("select id from orders order by id").fetchall() == [(40,), (41,)]
""",
    ),
    # A table of the program's own.
    "transactions": Preparation(
        f"""{_CLIENT}
from psycopg_pool import AsyncConnectionPool

order_id = 42
pool = AsyncConnectionPool(os.environ["DATABASE_URL"], open=False)
await pool.open()
async with pool.connection() as setup:
    await setup.execute("create table orders (id bigint)")
""".replace("from backfill", "import os\n\nfrom backfill", 1),
        f"""
await own.close()
await engine.dispose()
sync_client.close()
blocking.dispose()
await other.dispose()
async with pool.connection() as reader:
    jobs = await reader.execute("select count(*) from graphile_worker.jobs where task_identifier = 'ship_order'")
    found = await jobs.fetchone()
    assert found == (7,), found
await pool.close()
{_CLOSED}""",
    ),
    "django": Preparation(
        """
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "store.settings"
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # the page's blocks run on an event loop, and Django's views do not

import django

django.setup()

from django.db import connection
from store.models import Order

with connection.schema_editor() as editor:
    editor.create_model(Order)
""",
        """
assert list(Order.objects.values_list("receipt_sent", flat=True)) == [True]
connection.close()
client.close()
""",
    ),
    "exactly-once": Preparation(
        """
from backfill import BackfillClient, WorkerConfig, WorkerRunner
""",
        """
from shop.orm import Base, Order
from shop.sessions import engine, pay, sessions
from sqlalchemy.ext.asyncio import AsyncSession

async with engine.begin() as connection:
    await connection.run_sync(Base.metadata.create_all)
async with AsyncSession(engine) as session, BackfillClient() as client:
    session.add(Order(id=42, paid=0))
    await session.commit()
    await client.enqueue(pay.job(42))
    assert await WorkerRunner(WorkerConfig(), sessions).process_available_jobs() == 1
    await session.refresh(await session.get_one(Order, 42))
    assert (await session.get_one(Order, 42)).paid == 1
await engine.dispose()
""",
    ),
    "README": Preparation(
        """
import os

from psycopg_pool import AsyncConnectionPool

from backfill import NewJob, QueueConfig, WorkerConfig, WorkerContext

from app.jobs import tasks

dsn = os.environ["DATABASE_URL"]
email = {"recipient": "user@example.com", "subject": "Welcome!", "body": "Thanks."}
job = NewJob("send_email", email)
users = ["ada@example.com", "grace@example.com"]
text = "What is new."
order_id = 42
pool = AsyncConnectionPool(dsn, open=False)
await pool.open()
async with pool.connection() as setup:
    await setup.execute("create table orders (id bigint)")
""",
        f"""
async with pool.connection() as reader:
    found = await (await reader.execute("select count(*) from orders")).fetchone()
assert found == (1,)
await pool.close()
{_CLOSED}""",
    ),
}
"""By the page's name; a page that is not here needs none."""
