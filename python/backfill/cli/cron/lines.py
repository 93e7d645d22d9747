"""The line of a crontab that a command takes: read before anything is asked of a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backfill.errors import ConfigurationError

if TYPE_CHECKING:
    from backfill.cron import Schedule


def one_item(argument: str, text: str) -> Schedule:
    """The only item of a text.

    Args:
        argument: the name of the argument or option that the text is of, for errors.
        text: the text.

    Raises:
        CrontabParseError: the text cannot be read.
        ConfigurationError: it has no item, or several.
    """
    from backfill.cron import parse_crontab

    items = parse_crontab(text)
    if len(items) != 1:
        raise ConfigurationError(f'{argument}: one item, such as "0 4 * * * report"; there are {len(items)}')
    return items[0]
