"""The tasks of the application, and the client that enqueues them."""

from __future__ import annotations

from typing import Any

from django.db import close_old_connections

from backfill import SyncCallNext, TaskRegistry, WorkerContext
from backfill.sync import Client
from django_app.models import Order

client = Client()  # DATABASE_URL; each process connects at its first use
tasks = TaskRegistry()


@tasks.middleware
def with_fresh_connections(call_next: SyncCallNext, _ctx: WorkerContext[None]) -> Any:
    """Do around each job what Django does around each request: let go of connections that are broken or too old."""
    close_old_connections()
    try:
        return call_next()
    finally:
        close_old_connections()


@tasks.task("send_receipt")
def send_receipt(order_id: int) -> None:
    """Pretend to send the receipt of an order."""
    order = Order.objects.get(pk=order_id)
    order.receipt_sent = True
    order.save(update_fields=["receipt_sent"])
    print(f"receipt of order {order.pk} sent to {order.recipient}", flush=True)
