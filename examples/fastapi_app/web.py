"""The application: `uvicorn fastapi_app.web:app`, from the folder above this one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated

from fastapi import Body, FastAPI, HTTPException

from backfill import BackfillClient, QueueConfig, WorkerConfig, WorkerRunner
from backfill.contrib.fastapi import Backfill, Client, health_routes
from fastapi_app.jobs import Order, send_receipt, tasks

client = BackfillClient()  # DATABASE_URL
worker = WorkerRunner(
    WorkerConfig(queues=[QueueConfig.default_queue(5)], shutdown_timeout=timedelta(seconds=10)), tasks
)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Make the application's own table."""
    async with client.pool.connection() as connection:
        await connection.execute(
            """create table if not exists orders (
                   id bigint generated always as identity primary key,
                   recipient text not null,
                   receipt_sent boolean not null default false
               )"""
        )
    yield


app = FastAPI(lifespan=Backfill(client, worker=worker, lifespan=lifespan))
app.include_router(health_routes, prefix="/worker")


@app.post("/orders", status_code=201)
async def create(recipient: Annotated[str, Body(embed=True)], client: Client) -> Order:
    """Write an order, and the job that sends its receipt, in one transaction."""
    async with client.pool.connection() as connection, connection.transaction():
        cursor = await connection.execute("insert into orders (recipient) values ($1) returning id", [recipient])
        [[number]] = await cursor.fetchall()
        order = Order(number, recipient)
        await client.enqueue(send_receipt.job(order), connection=connection)
    return order


@app.get("/orders/{number}")
async def look(number: int, client: Client) -> dict[str, bool]:
    """Whether the receipt of an order was sent."""
    async with client.pool.connection() as connection:
        cursor = await connection.execute("select receipt_sent from orders where id = $1", [number])
        found = await cursor.fetchone()
    if found is None:
        raise HTTPException(404, f"there is no order {number}")
    return {"receipt_sent": found[0]}
