"""Fifty recurring items in the form that Node's scheduler reads too, in no order of their names."""

from __future__ import annotations

import random

_EVERY_MINUTE = 20
_TIMES = (
    *("*/2 * * * *", "*/3 * * * *", "*/5 * * * *", "*/7 * * * *", "0 * * * *", "30 * * * *", "0,15,30,45 * * * *"),
    *("10-20 * * * *", "50-59 * * * *", "0-9,55 * * * *", "* 23 * * *", "* 0 * * *", "*/4 0,23 * * *", "59 23 * * *"),
    *("0 0 * * *", "0 0 1 * *", "* * 28 2 *", "* * 1 3 *", "*/6 * * 2 *", "*/6 * * 3 *", "* * * * 6", "* * * * 0"),
    *("*/9 * * * 7", "*/9 * * * 5-7", "0 */2 * * *", "1 * * * *", "*/10 * 1-7 * *", "*/11 * * 1,3,5 *"),
    *("*/8 * * 2,3 1-5", "*/13 */1 * * *"),
)
_OPTIONS = (
    *(
        "",
        "",
        "",
        "priority=-5",
        "priority=7&max=3",
        "queue=q%d",
        "jobKey=key%d",
        "jobKey=kept%d&jobKeyMode=preserve_run_at",
    ),
)


def node_items(seed: int, fill: str = "") -> str:
    """A crontab of fifty items, each with a task of its own.

    Args:
        seed: of their order, and of which has which options.
        fill: the option that each second one has, such as `fill=1h`; none if it is empty.
    """
    chance = random.Random(seed)
    lines = []
    for number, times in enumerate(["* * * * *"] * _EVERY_MINUTE + list(_TIMES)):
        options = [chance.choice(_OPTIONS).replace("%d", str(number)), fill if number % 2 else "", f"id=item-{number}"]
        payload = chance.choice(["", ' {from: "node", number: 1}', " {}"])
        lines.append(f"{times} task{number} ?{'&'.join(filter(None, options))}{payload}")
    chance.shuffle(lines)
    return "\n".join(lines)
