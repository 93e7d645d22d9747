"""Which view answers where."""

from __future__ import annotations

from django.urls import path

from django_app.views import create, look

urlpatterns = [path("orders", create), path("orders/<int:number>", look)]
