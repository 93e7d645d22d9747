"""The sweep of shares: it deletes slots that nobody needs any more, and no others."""

from __future__ import annotations

from share_takers import Field, MakeTaker


async def test_the_sweep_deletes_what_nobody_needs(field: Field, make_taker: MakeTaker) -> None:
    """Slots of idle values go, those beyond a lowered limit when none of them is taken, and no other ones."""
    await field.limit(5)
    taker = await make_taker("taker_a")
    await taker.take(5)
    assert await field.sweep() == 0
    await field.limit(2)
    await taker.send(taker.complete(1, 2, 3, 4))
    assert await field.sweep() == 0  # the job in the fifth slot still runs
    await taker.send(taker.complete(5))
    assert (await taker.take(1)).slots == (1,)
    assert await field.sweep() == 1
    assert await field.rows("select slot from graphile_worker.backfill_shares order by slot") == [(1,), (2,)]
    await field.limit(3)
    assert (await taker.take(9)).slots == (2, 3)
    await taker.connection.execute("begin")
    await taker.send(taker.complete(*taker.running), taker.renew())
    await taker.connection.execute("commit")
    assert await field.sweep() == 1
    assert await field.rows("select 1 from graphile_worker.backfill_shares") == []
    assert await field.rows("select 1 from graphile_worker.backfill_limit_states") == []
    assert (await taker.take(9)).slots == (1, 2, 3)


async def test_the_sweep_leaves_what_a_rate_remembers(field: Field, make_taker: MakeTaker) -> None:
    """A value whose next start lies ahead is kept, and so is one that somebody has locked."""
    await field.limit(None, (1, 60.0, 1))
    taker = await make_taker("taker_a")
    await taker.take(1)
    await taker.send(taker.complete(1))
    assert await field.sweep() == 0
    await field.limit(3)
    await taker.connection.execute("begin")
    await taker.take(1)
    assert await field.sweep() == 0
    await taker.connection.execute("rollback")
