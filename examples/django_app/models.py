"""What the application writes."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """An order, and whether its receipt was sent."""

    recipient = models.TextField()
    receipt_sent = models.BooleanField(default=False)

    class Meta:
        """Names the application, since it stands in a folder of examples."""

        app_label = "django_app"

    def __str__(self) -> str:
        return f"order {self.pk} of {self.recipient}"
