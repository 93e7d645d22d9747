"""What travels in a job's flags comes back as it was: policies, durations, and the flags of a whole spec."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backfill import ConfigurationError, InvalidJobError, JobSpec, RetryPolicy
from backfill.flags import ALLOWED, BLOCK_FLAG, DEADLINE_FLAG, TIMEOUT_FLAG, flags_of
from backfill.records import DEAD_LETTER_FLAG, Mark, flags_from_jsonb
from backfill.retry import FLAG_PREFIX, format_duration, parse_duration

import strategies as make


@given(st.timedeltas(timedelta(0), timedelta(days=36_525)))
@example(timedelta(days=36_524, microseconds=1))
@example(timedelta(days=36_525) - timedelta(microseconds=1))
@example(timedelta(microseconds=1))
def test_duration_comes_back(duration: timedelta) -> None:
    """Any duration that a job may have is read as it was written, to the microsecond."""
    assert parse_duration(format_duration(duration)) == duration


@given(make.policies())
@example(RetryPolicy(8, timedelta(0), timedelta(0), 1.0, 0.00012345678901234567))
@example(RetryPolicy(8, timedelta(0), timedelta(days=366), 1000.0, 5e-324))
def test_policy_comes_back(policy: RetryPolicy) -> None:
    """A policy's timing is read as it was written."""
    read = RetryPolicy.from_flag(policy.to_flag())
    assert (read.initial_delay, read.max_delay, read.backoff_multiplier, read.jitter_factor) == (
        policy.initial_delay,
        policy.max_delay,
        policy.backoff_multiplier,
        policy.jitter_factor,
    )


@given(make.specs())
def test_flags_of_a_spec(spec: JobSpec) -> None:
    """A spec's flags are the caller's own, in order and once each, then ours, each readable."""
    flags = flags_of(spec)
    own = list(spec.flags or ())
    assert flags[: len(own)] == own
    rest = flags[len(own) :]
    if spec.queue is not None and spec.queue.block_on_retry:
        assert rest.pop(0) == BLOCK_FLAG
    if spec.retry is not None:
        assert RetryPolicy.from_flag(rest.pop(0)).initial_delay == spec.retry.initial_delay
    if spec.timeout is not None:
        assert parse_duration(rest.pop(0).removeprefix(TIMEOUT_FLAG)) == spec.timeout
    if spec.deadline is not None:
        read = datetime.fromisoformat(rest.pop(0).removeprefix(DEADLINE_FLAG))
        assert read.astimezone(UTC) == spec.deadline.astimezone(UTC)
    assert rest == []


@given(st.text(max_size=40) | st.from_regex(r"\d{0,20}\.?\d{0,9}(ms|s|m|h|d|w)?", fullmatch=True))
def test_any_duration_text_is_read_or_refused(text: str) -> None:
    """No text does anything but give a duration or the one error."""
    try:
        read = parse_duration(text)
    except ConfigurationError as error:
        refusal = str(error)
    else:
        assert read >= timedelta(0)
        return
    assert repr(text) in refusal


@given(
    st.text(max_size=40) | st.from_regex(r"[0-9a-z.]{0,9},[0-9a-z.]{0,9},[0-9.e-]{0,9},[0-9.e-]{0,9}", fullmatch=True)
)
def test_any_policy_text_is_read_or_refused(text: str) -> None:
    """No flag does anything but give a policy or the one error."""
    flag = FLAG_PREFIX + text
    try:
        read = RetryPolicy.from_flag(flag)
    except ConfigurationError as error:
        refusal = str(error)
    else:
        assert RetryPolicy.from_flag(read.to_flag()).initial_delay == read.initial_delay
        return
    assert " = " in refusal, "it names the field and its value"


@given(
    st.lists(
        st.sampled_from(["", "backfill", "backfill.", *ALLOWED, DEAD_LETTER_FLAG]).flatmap(
            lambda start: st.text(
                st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
            ).map(lambda rest: start + rest)
        )
    )
)
def test_flags_that_only_we_set_are_refused(flags: list[str]) -> None:
    """Those that begin as ours do, but for three; all others are taken as they are."""
    own = [flag for flag in flags if flag.startswith("backfill.") and not flag.startswith(ALLOWED)]
    if own:
        with pytest.raises(InvalidJobError, match=r"^flags = .*leave it out"):
            JobSpec(flags=flags)
    else:
        assert JobSpec(flags=flags).flags == tuple(dict.fromkeys(flags))


@given(
    st.lists(st.sampled_from(["f", "backfill.timeout:1s", f"{DEAD_LETTER_FLAG}1", f"{DEAD_LETTER_FLAG}2"]), unique=True)
)
def test_what_is_read_from_a_row_can_be_given(flags: list[str]) -> None:
    """A mark reads as the string that it is, and is left out of a new job's flags."""
    read = flags_from_jsonb(b"\x01" + orjson.dumps(dict.fromkeys(flags, True)))
    assert list(read) == flags
    assert [flag for flag in read if isinstance(flag, Mark)] == [
        flag for flag in flags if flag.startswith(DEAD_LETTER_FLAG)
    ]
    for given_as in (read, list(read), set(read), iter(read)):
        kept = JobSpec(flags=given_as).flags
        assert set(kept or ()) == {flag for flag in flags if not flag.startswith(DEAD_LETTER_FLAG)}
        assert {type(flag) for flag in kept or ()} <= {str}


def test_other_flags_are_no_policies() -> None:
    """A flag that does not begin with our prefix is refused by name."""
    with pytest.raises(ConfigurationError, match=r"backfill\.retry:"):
        RetryPolicy.from_flag("retry:fast")
