"""The application's views."""

from __future__ import annotations

import json

from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from django_app.jobs import client, send_receipt
from django_app.models import Order


@csrf_exempt  # programs post here, not forms
@require_POST
def create(request: HttpRequest) -> JsonResponse:
    """Write an order, and the job that sends its receipt, in one transaction."""
    recipient = str(json.loads(request.body)["recipient"])
    with transaction.atomic():
        order = Order.objects.create(recipient=recipient)
        client.enqueue(send_receipt.job(order.pk), connection=connection)
    return JsonResponse({"id": order.pk, "recipient": recipient}, status=201)


def look(_request: HttpRequest, number: int) -> JsonResponse:
    """Whether the receipt of an order was sent."""
    return JsonResponse({"receipt_sent": get_object_or_404(Order, pk=number).receipt_sent})
