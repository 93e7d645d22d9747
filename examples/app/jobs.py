"""The tasks of an application: `backfill worker app.jobs:tasks`, from the folder above this one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from backfill import RetryPolicy, TaskRegistry, WorkerContext

tasks = TaskRegistry()


@dataclass
class SendEmail:
    """The payload of `send_email`."""

    recipient: str
    subject: str
    body: str


@tasks.task("send_email", retry=RetryPolicy.fast(), timeout=timedelta(seconds=30))
async def send_email(email: SendEmail, ctx: WorkerContext[None]) -> None:
    """Pretend to send an email."""
    print(f"to {email.recipient}: {email.subject} (job {ctx.job.id}, attempt {ctx.attempt})", flush=True)


@tasks.task("resize_image")
def resize_image(name: str) -> None:
    """Pretend to resize an image; a plain function runs in a thread, and may block."""
    print(f"{name} resized", flush=True)
