"""The soak tells growth from a first warm-up and from what is under way at one look."""

from dataclasses import replace

from tests.soak.vitals import DATABASE, Vitals, complaints, growth

LOOK = Vitals(
    at_seconds=0.0,
    resident_bytes=70_000_000,
    descriptors=28,
    open_files={"socket": 20, DATABASE: 3},
    threads=3,
    tasks={"probe": 10},
    objects=2000,
    blocks=300_000,
    kinds={"dict": 500},
    held={"gateway_calls_in_flight": 0.0},
)


def looks(**steps: float) -> list[Vitals]:
    """Twelve looks, 100 s apart, at each of which a number is so much more than at the last."""
    return [
        replace(
            LOOK,
            at_seconds=100.0 * number,
            **{name: getattr(LOOK, name) + round(step * number) for name, step in steps.items()},
        )
        for number in range(12)
    ]


def test_what_stays_as_it_is_is_well() -> None:
    assert complaints(looks()) == []


def test_growth_is_found() -> None:
    assert complaints(looks(resident_bytes=400_000)) == [
        "resident memory grows by 13.7 MiB an hour"
    ]
    assert complaints(looks(descriptors=1)) == ["6 more descriptors are open"]
    assert complaints(looks(blocks=1000)) == ["6000 more blocks are allocated"]


def test_a_warm_up_is_no_growth() -> None:
    warming = [replace(look, resident_bytes=60_000_000) for look in looks()[:3]]
    assert complaints([*warming, *looks()[3:]]) == []


def test_a_heap_that_still_settles_is_not_judged() -> None:
    young = [
        replace(look, at_seconds=look.at_seconds / 2) for look in looks(resident_bytes=400_000)
    ]
    assert complaints(young) == []


def test_what_is_under_way_at_one_look_is_no_growth() -> None:
    seen = looks()
    seen[-1] = replace(seen[-1], descriptors=30, tasks={"probe": 11})
    assert complaints(seen) == []


def test_two_readers_of_the_database_that_meet_late_are_no_growth() -> None:
    met = [
        replace(look, descriptors=29, open_files={"socket": 20, DATABASE: 4}) for look in looks()
    ]
    assert complaints([*looks()[:6], *met[6:]]) == []


def test_a_database_that_is_opened_ever_again_is_found() -> None:
    seen = [
        replace(look, descriptors=28 + number, open_files={"socket": 20, DATABASE: 3 + number})
        for number, look in enumerate(looks())
    ]
    assert complaints(seen) == ["the database is open 14 times"]


def test_what_is_held_at_rest_is_told() -> None:
    seen = [*looks()[:-1], replace(LOOK, at_seconds=1100.0, held={"gateway_queue_depth": 2.0})]
    assert complaints(seen) == ["at 1100 s of rest: gateway_queue_depth is 2"]


def test_a_few_looks_say_nothing_of_growth() -> None:
    assert growth(looks(resident_bytes=400_000)[:3]) is None
