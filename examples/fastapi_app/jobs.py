"""The tasks of the application."""

from __future__ import annotations

from dataclasses import dataclass

from backfill import TaskRegistry, WorkerContext

tasks = TaskRegistry()


@dataclass
class Order:
    """The payload of `send_receipt`."""

    id: int
    recipient: str


@tasks.task("send_receipt")
async def send_receipt(order: Order, ctx: WorkerContext[None]) -> None:
    """Pretend to send a receipt, and note that in the transaction that completes the job."""
    async with ctx.transaction() as tx:
        await tx.connection.execute("update orders set receipt_sent = true where id = %s", [order.id])
    print(f"receipt of order {order.id} sent to {order.recipient}", flush=True)
