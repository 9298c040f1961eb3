"""What a job starts before its pipeline, and how it ends."""

from __future__ import annotations

import pytest

from beam_jobs.runners import early


class Work:
    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_it_is_found_by_the_jobs_name_until_it_is_closed() -> None:
    with early.kept("one", Work), early.kept("other", Work):
        found = early.started("one")
        assert found is early.started("one") is not early.started("other")
        assert not found.is_closed
    assert found.is_closed
    with pytest.raises(KeyError):
        early.started("one")


def test_a_job_that_fails_closes_it_and_another_of_its_name_starts_anew() -> None:
    works: list[Work] = []

    def fail() -> None:
        with early.kept("job", Work):
            works.append(early.started("job"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert works[0].is_closed
    with early.kept("job", Work):
        assert early.started("job") is not works[0]
