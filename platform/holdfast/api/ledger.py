"""The ledger: every decision, and whether the chain verifies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from holdfast.api.dependencies import HouseOf
from holdfast.api.failures import documented
from holdfast.domain.ledger import GENESIS, LedgerEntry, verify
from holdfast.ports import UnitOfWork

router = APIRouter(prefix="/ledger", tags=["ledger"])


class LedgerVerified(BaseModel):
    """The whole chain was checked and holds."""

    entry_count: int
    head: str
    """Hash of the newest row; keep it elsewhere to notice a chain that was written anew."""


@router.get("", summary="Ledger rows, in order")
def list_entries(
    house: HouseOf, after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=1_000)] = 100
) -> list[LedgerEntry]:
    """Page on with ``after`` = the last ``seq``."""
    with house.unit_of_work() as work:
        return list(work.ledger.entries(after=after, limit=limit))


@router.get("/verify", summary="Check the whole chain", responses=documented(500))
def verify_ledger(house: HouseOf) -> LedgerVerified:
    """500 with code ``ledger_broken`` and the row, when a row was edited, removed, inserted or moved."""
    with house.unit_of_work() as work:
        walk = _Walk(work)
        return LedgerVerified(entry_count=verify(walk), head=walk.head)


class _Walk:
    """The whole ledger, a page at a time; remembers the newest hash."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work, self.head = work, GENESIS

    def __iter__(self) -> Iterator[LedgerEntry]:
        after = 0
        while page := self._work.ledger.entries(after=after, limit=1_000):
            for entry in page:
                self.head, after = entry.hash, entry.seq
                yield entry
