"""What a worker runs: `backfill worker django_app.worker:tasks`, from the folder above this one."""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_app.settings")
django.setup()

from django_app.jobs import tasks  # noqa: E402 - models can be imported once Django is set up

__all__ = ["tasks"]
