"""`backfill cron`: the group of commands for recurring jobs; looking and saying stand in two modules."""

from __future__ import annotations

import typer

from backfill.cli.cron import looking, saying

group = typer.Typer(
    name="cron",
    help="List, preview and change recurring jobs while workers run.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
group.command("list")(looking.list_all)
group.command("show")(looking.show)
group.command("next")(looking.coming)
group.command("preview")(looking.preview)
group.command("add")(saying.add)
group.command("change")(saying.change)
group.command("trigger")(saying.trigger)
group.command("pause")(saying.pause)
group.command("resume")(saying.resume)
group.command("remove")(saying.remove)
group.command("reset")(saying.reset)
