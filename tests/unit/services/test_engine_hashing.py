from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from preceptor_services.engine.hashing import ranked

names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True)
keys = st.text(max_size=20)


@given(names, keys, st.data())
def test_losing_a_replica_moves_its_own_keys_alone_and_to_the_next(
    names: list[str], key: str, data: st.DataObject
) -> None:
    order = ranked(names, key)
    lost = data.draw(st.sampled_from(names))
    assert ranked([name for name in names if name != lost], key) == [name for name in order if name != lost]


@given(names, keys, st.randoms())
def test_the_order_depends_on_names_and_key_alone(names: list[str], key: str, dice: object) -> None:
    order = ranked(names, key)
    assert sorted(order) == sorted(names)
    shuffled = list(names)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert ranked(shuffled, key) == order


def test_keys_spread_evenly_over_the_replicas_and_over_the_next_in_line() -> None:
    orders = [ranked(["a:8000", "b:8000", "c:8000"], f"cohort-{index}") for index in range(3000)]
    assert min(Counter(order[0] for order in orders).values()) > 900
    assert min(Counter(order[1] for order in orders if order[0] == "a:8000").values()) > 400
