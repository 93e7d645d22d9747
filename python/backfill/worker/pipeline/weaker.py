"""Leaves parts out of an end that the database refuses, step by step, so that the decision about its job is written.

A database may refuse an end for many reasons: its encoding lacks a character of the error's text, a constraint or a
trigger forbids the text, it does not accept the result as JSON, or the table of ends takes no rows. None of them is a
reason to run a job again that must not be retried, or to forget how long a job must wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from backfill.worker.execution.endings import Ending
from backfill.worker.execution.failures import cleansed

REFUSED_TEXT: Final = "the text of this error was refused by the database"


@dataclass(frozen=True, slots=True)
class Form:
    """One form in which an end can be written.

    Attributes:
        ending: how the attempt ended.
        keep: for how many seconds the end is kept; None where it is not kept.
        forgets: whether the dead letters that the job leaves behind are deleted with it.
        progress: whether what the attempt leaves to the next one is written too, or that of an ended job deleted.
        lacks: what this form leaves out, as the log says it; "" for the whole end.
    """

    ending: Ending
    keep: float | None
    forgets: bool = True
    progress: bool = False
    lacks: str = ""


def weaker_forms(whole: Form, reason: str) -> Iterator[Form]:
    """The forms of an end that say less than the whole, those that say most first.

    Each of them decides the same about the job.

    Args:
        whole: the whole end, which was refused.
        reason: what the database said.
    """
    if whole.progress:
        yield replace(whole, progress=False, lacks="its progress")
    yield from _weaker_ends(whole, reason)
    if whole.progress:
        for form in _weaker_ends(replace(whole, progress=False), reason):
            yield replace(form, lacks=f"its progress, and {form.lacks}")


def _weaker_ends(whole: Form, reason: str) -> Iterator[Form]:
    """The forms in which the end itself says less."""
    ending = whole.ending
    if whole.keep is not None:
        if (without := ending.without_result(reason)) is not None:
            ending = without
            yield replace(whole, ending=ending, lacks="its result")
        for text, lost in _weaker_texts(ending):
            yield replace(whole, ending=text, lacks=lost)
        yield replace(whole, keep=None, lacks="being kept")
    if ending.text_in_row:
        for text, lost in _weaker_texts(ending):
            yield replace(
                whole, ending=text, keep=None, lacks=lost if whole.keep is None else f"being kept, and {lost}"
            )
    if (unrecorded := ending.without_record()) is not None:
        lost = "its attempt's record" if whole.keep is None else "being kept, and its attempt's record"
        yield replace(whole, ending=unrecorded, keep=None, lacks=lost)
        if ending.text_in_row:
            for text, also in _weaker_texts(unrecorded):
                yield replace(whole, ending=text, keep=None, lacks=f"{lost}, and {also}")
    if ending.ends_job:
        yield replace(whole, keep=None, forgets=False, lacks="deleting the dead letters that it leaves behind")


def _weaker_texts(ending: Ending) -> Iterator[tuple[Ending, str]]:
    """An end with its text in ASCII, then with a text that says nothing; neither where it has no text."""
    text = ending.text
    if text is None:
        return
    plain = cleansed(text.encode("ascii", "backslashreplace").decode())
    if plain != text:
        yield ending.with_text(plain), "some characters of its text"
    yield ending.with_text(REFUSED_TEXT), "its text"
