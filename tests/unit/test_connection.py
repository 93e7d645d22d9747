"""What is shown of a connection that cannot be had: everything but the password."""

from __future__ import annotations

from urllib.parse import quote

import psycopg
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from backfill.errors import ConfigurationError
from backfill.storage.connection import complete, redacted, unreachable

REFUSED = 'connection to server at "h", port 5432 failed: FATAL: password authentication failed for user "u"'


@pytest.mark.parametrize("password", ["a", "u", "e", "at", "to", "5", "$", "\\", ".", "***"])
def test_a_short_password_leaves_the_text_as_it_is(password: str) -> None:
    """Its letters are in every word; that is no place where a password stands."""
    conninfo = make_conninfo(host="h", password=password)
    shown = str(unreachable(conninfo, psycopg.OperationalError(f"is not there: {REFUSED[:66]}")))
    assert shown == f"cannot connect to PostgreSQL at host=h: is not there: {REFUSED[:66]}"


@given(password=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12))
def test_no_password_is_shown_where_one_stands(password: str) -> None:
    """In an address, plain and as it must be written there, behind its keyword, and quoted: of any length."""
    places = ("postgresql://u:{}@h", "password={} port=1", "password='{}'", 'no "{}"')
    assume(len(password) < 4 or not any(password in place for place in places))
    assume(len(password) >= 4 or not set(password) & set("'\""))  # between quotes, which of them is it?
    for place in places:
        for form in (password, quote(password, safe="")):
            error = psycopg.OperationalError(place.format(form))
            conninfo = make_conninfo(host="h", password=password)
            shown = str(unreachable(conninfo, error)).removeprefix("cannot connect to PostgreSQL at host=h: ")
            assert shown == place.format("***")


@pytest.mark.parametrize(
    "given_dsn", ["postgresql://u:p@ss-word@h/db", "postgresql://u:pa/ss@h:1/db", "postgresql://u:a@b@h:1"]
)
def test_a_password_that_was_not_encoded_is_refused_and_not_shown(given_dsn: str) -> None:
    """What libpq takes for host, port or database is a part of it; the error says how to write it."""
    with pytest.raises(ConfigurationError, match="percent-encoded") as caught:
        complete(given_dsn, application_name="test")
    assert "ss" not in str(caught.value).replace("password", "")
    assert redacted(given_dsn) == "(a connection string that cannot be read)"


@pytest.mark.parametrize(
    "given_dsn", ["host=@abstract dbname=d", "postgresql://u:p%40ss@h/db", "dbname='a@b'", "postgresql:///?host=@x"]
)
def test_what_may_have_such_a_sign_is_taken(given_dsn: str) -> None:
    """A socket's name, an encoded password, a database named by keyword."""
    assert complete(given_dsn, application_name="test")
