"""A payload's bytes go to the server as they are, on any connection and in any way of writing."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import Dumper

from backfill import BackfillClient, JobSpec, NewJob
from backfill.storage.arrays import encoded_array, text_array

PAYLOAD = {"quotes": '"\\" {}', "more": "é, 猫, 🐈", "empty": ""}
TEXT = '{"quotes":"\\"\\\\\\" {}","more":"é, 猫, 🐈","empty":""}'.encode()


class Reversed(Dumper):
    """A dumper of bytes that a caller has registered, and that would spoil a payload."""

    def dump(self, obj: bytes) -> bytes:
        """The bytes, last one first."""
        return obj[::-1]


@given(values=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_arrays_of_encoded_texts_are_those_of_texts(values: list[str]) -> None:
    """Both are the same text, whatever is in it."""
    assert encoded_array([value.encode() for value in values]) == text_array(values).encode()


@pytest.mark.parametrize("keyed", [False, True])
async def test_on_the_clients_own_connections(dsn: str, keyed: bool) -> None:
    """The first time by the driver's cursor, then prepared, and past it."""
    async with BackfillClient(dsn) as client:
        for number in range(4):
            keywords: dict[str, Any] = {"job_key": f"key {number}"} if keyed else {}
            outcome = await client.enqueue("t", PAYLOAD, **keywords)
            job = await client.get_job(outcome)
            assert job is not None
            assert job.payload_bytes == TEXT


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("keyed", [False, True])
async def test_on_a_callers_connection(dsn: str, keyed: bool, piped: bool) -> None:
    """What the caller has registered for bytes is left alone, and not used; one job, and many in the place of COPY."""
    async with BackfillClient(dsn) as client, await psycopg.AsyncConnection.connect(dsn, autocommit=True) as theirs:
        theirs.adapters.register_dumper(bytes, Reversed)
        keywords: dict[str, Any] = {"job_key": "one"} if keyed else {}
        if piped:
            async with theirs.pipeline():
                one = await client.enqueue("t", PAYLOAD, connection=theirs, **keywords)
                many = await client.enqueue_bulk(jobs(keyed), return_ids=True, connection=theirs)
        else:
            one = await client.enqueue("t", PAYLOAD, connection=theirs, **keywords)
            many = await client.enqueue_bulk(jobs(keyed), return_ids=True, connection=theirs)
        for number in [one.id, *(many.ids or ())]:
            job = await client.get_job(number)
            assert job is not None
            assert job.payload_bytes == TEXT
        cursor = await theirs.execute("select %s::text", [b"abc"])
        assert await cursor.fetchone() == ("cba",)


async def test_in_a_dead_letter(dsn: str) -> None:
    """An entry that is written by hand, and the job that is requeued from it with another payload."""
    async with BackfillClient(dsn) as client:
        job = (await client.enqueue("t", PAYLOAD)).job
        entry = await client.add_to_dlq(job, "by hand")
        assert entry.payload == PAYLOAD
        added = await client.requeue_dlq_job(entry.id, payload={"other": "é"})
        assert added.payload_bytes == '{"other":"é"}'.encode()


def jobs(keyed: bool) -> list[NewJob[Any]]:
    """Three jobs with the payload."""
    return [NewJob("t", PAYLOAD, JobSpec(job_key=f"many {n}" if keyed else None)) for n in range(3)]
