"""The tasks of the application: `backfill worker flask_app.jobs:tasks`, from the folder above this one."""

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
def send_receipt(order: Order, ctx: WorkerContext[None]) -> None:
    """Pretend to send a receipt, and note that in the transaction that completes the job."""
    with ctx.transaction() as tx:
        tx.connection.execute("update orders set receipt_sent = true where id = %s", [order.id])
    print(f"receipt of order {order.id} sent to {order.recipient}", flush=True)
