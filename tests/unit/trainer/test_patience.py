from __future__ import annotations

import time

from preceptor_trainer.patience import Patience


async def test_patience_lasts_as_long_as_told_and_is_counted_from_the_first_pause() -> None:
    patience = Patience(0.3)
    began = time.monotonic()
    pauses = 0
    while await patience.pause():
        pauses += 1
    assert time.monotonic() - began >= 0.3
    assert 1 <= pauses <= 8


async def test_patience_that_began_before_is_over_as_much_earlier() -> None:
    assert not await Patience(10, since=time.monotonic() - 10).pause()
