"""Django's settings; DATABASE_URL says where the database is, for Django and for the queue."""

from __future__ import annotations

import os

from psycopg.conninfo import conninfo_to_dict

_connection = conninfo_to_dict(os.environ["DATABASE_URL"])

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "only for trying it out")
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "django_app.urls"
INSTALLED_APPS = ["django_app"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _connection.pop("dbname", ""),
        "OPTIONS": _connection,
    }
}
