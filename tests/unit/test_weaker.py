"""What is left out of an end that is refused.

Every form decides the same about the job, and says less than the one before.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from backfill.worker.execution.endings import (
    COMPLETED,
    GIVEN_BACK,
    CompletedWithResult,
    Discarded,
    Ending,
    Failed,
    Snoozed,
)
from backfill.worker.execution.failures import Raised
from backfill.worker.pipeline.weaker import REFUSED_TEXT, Form, weaker_forms

from strategies import texts

delays = st.none() | st.floats(0, 1e6)
raised = st.builds(Raised, st.none() | texts, texts, st.none() | texts)
endings = (
    st.sampled_from([COMPLETED, GIVEN_BACK])
    | st.builds(Failed, texts, st.booleans(), delays, raised=st.none() | raised)
    | st.builds(Snoozed, st.floats(0, 1e6))
    | st.builds(Discarded, texts)
    | st.builds(CompletedWithResult, st.none() | st.just(b"1"), st.none() | texts)
)


def _text(ending: Ending) -> str | None:
    if isinstance(ending, Discarded):
        return ending.reason
    return ending.error if isinstance(ending, (Failed, CompletedWithResult)) else None


def _verdict(ending: Ending) -> object:
    """What an ending decides about its job."""
    if isinstance(ending, Failed):
        return replace(ending, error="", raised=None, recorded=True)
    if isinstance(ending, Discarded):
        return Discarded
    return replace(ending, recorded=True) if isinstance(ending, Snoozed) else type(ending)


@given(ending=endings, keep=st.none() | st.just(60.0))
def test_no_form_decides_otherwise(ending: Ending, keep: float | None) -> None:
    """Final stays final, a delay stays as long, a discarded job is discarded; and each form differs from the others."""
    whole = Form(ending, keep)
    forms = list(weaker_forms(whole, "no \U0001f600"))
    assert all(_verdict(form.ending) == _verdict(ending) for form in forms)
    assert all(form.keep in (keep, None) and form.lacks for form in forms)
    said = [(form.ending, form.keep, form.forgets) for form in [whole, *forms]]
    assert all(one not in said[:place] for place, one in enumerate(said) if place) or REFUSED_TEXT in str(ending)
    assert len(forms) <= 8
    if isinstance(ending, Failed):
        assert forms[-1].ending == replace(ending, error=REFUSED_TEXT, raised=_refused(ending), recorded=False)
        assert forms[-1].keep is None
    if isinstance(ending, (Snoozed, type(GIVEN_BACK))) and keep is None:
        assert [form.ending for form in forms] == [replace(ending, recorded=False)]


@given(ending=endings, keep=st.none() | st.just(60.0))
def test_progress_is_left_out_first(ending: Ending, keep: float | None) -> None:
    """It is the least that is lost; then each form of the end is tried with it, and then without it."""
    plain = list(weaker_forms(Form(ending, keep), "no"))
    first, *forms = weaker_forms(Form(ending, keep, progress=True), "no")
    assert first == Form(ending, keep, lacks="its progress")
    assert forms[: len(plain)] == [replace(form, progress=True) for form in plain]
    assert forms[len(plain) :] == [replace(form, lacks=f"its progress, and {form.lacks}") for form in plain]


def _refused(ending: Failed) -> Raised | None:
    """What is left of an error whose texts are refused: its class, where that is in ASCII."""
    if ending.raised is None:
        return None
    kind = ending.raised.error_type
    return Raised(kind if kind is not None and kind.isascii() else None, REFUSED_TEXT, None)


@given(texts, st.none() | st.just(60.0))
def test_the_text_is_kept_as_far_as_it_can_be_written(text: str, keep: float | None) -> None:
    """In ASCII before it is left out, and as it is where only the table of ends refuses it."""
    found = [(form.keep, _text(form.ending)) for form in weaker_forms(Form(Failed(text), keep), "no")]
    plain = text.encode("ascii", "backslashreplace").decode()
    lines = ([plain] if plain != text else []) + [REFUSED_TEXT]
    whole, weaker = [(None, text)], [(None, line) for line in lines]
    unrecorded = whole + weaker
    kept = [(keep, line) for line in lines]
    assert found == (kept + unrecorded if keep is None else kept + whole + weaker + unrecorded)


@given(texts)
def test_an_attempt_without_its_record_decides_the_same(text: str) -> None:
    """The list of attempts may be what refuses an end; then it says nothing of the attempt, and no text is lost."""
    forms = list(weaker_forms(Form(Failed(text), None), "no"))
    assert Form(Failed(text, recorded=False), None, lacks="its attempt's record") in forms
