"""The application: `gunicorn "flask_app.web:create_app()"`, from the folder above this one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Flask, abort, request

from backfill.contrib.flask import Backfill
from flask_app.jobs import Order, send_receipt

queue = Backfill()
orders = Blueprint("orders", __name__)


def create_app() -> Flask:
    """Make the application; its config comes from variables of the environment such as FLASK_BACKFILL_MAX_SIZE."""
    app = Flask(__name__)
    app.config.from_prefixed_env()
    queue.init_app(app)
    app.register_blueprint(orders)
    app.cli.command("make-tables")(make_tables)
    return app


def make_tables() -> None:
    """Make the application's own table."""
    with queue.client as client, client.pool.connection() as connection:
        connection.execute(
            """create table if not exists orders (
                   id bigint generated always as identity primary key,
                   recipient text not null,
                   receipt_sent boolean not null default false
               )"""
        )


@orders.post("/orders")
def create() -> tuple[dict[str, Any], int]:
    """Write an order, and the job that sends its receipt, in one transaction."""
    recipient = str(request.get_json()["recipient"])
    client = queue.client
    client.open()
    with client.pool.connection() as connection, connection.transaction():
        [[number]] = connection.execute(
            "insert into orders (recipient) values ($1) returning id", [recipient]
        ).fetchall()
        order = Order(number, recipient)
        client.enqueue(send_receipt.job(order), connection=connection)
    return asdict(order), 201


@orders.get("/orders/<int:number>")
def look(number: int) -> dict[str, Any]:
    """Whether the receipt of an order was sent."""
    client = queue.client
    client.open()
    with client.pool.connection() as connection:
        found = connection.execute("select receipt_sent from orders where id = $1", [number]).fetchone()
    if found is None:
        abort(404)
    return {"receipt_sent": found[0]}
