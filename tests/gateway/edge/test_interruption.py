"""Interruption and Lifecycle: ending running calls from outside, and only those."""

import asyncio

import pytest

from gateway.edge.interruption import Interruption
from gateway.edge.lifecycle import Lifecycle
from gateway.errors import ClientDisconnected, Draining, GatewayError


async def held(interruption: Interruption, began: asyncio.Event) -> str:
    try:
        with interruption:
            began.set()
            await asyncio.Event().wait()
    except GatewayError as error:
        return type(error).__name__
    return "ended"


async def test_an_interrupted_block_ends_with_the_error_and_its_task_lives_on() -> None:
    interruption, began = Interruption(), asyncio.Event()
    task = asyncio.create_task(held(interruption, began))
    await began.wait()

    interruption.interrupt(ClientDisconnected("gone"))

    assert await task == "ClientDisconnected"
    assert task.cancelling() == 0


async def test_only_the_first_interruption_counts() -> None:
    interruption, began = Interruption(), asyncio.Event()
    task = asyncio.create_task(held(interruption, began))
    await began.wait()

    interruption.interrupt(Draining("end"))
    interruption.interrupt(ClientDisconnected("gone"))

    assert await task == "Draining"


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    task = asyncio.create_task(held(Interruption(), began := asyncio.Event()))
    await began.wait()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_interruption_after_the_block_does_nothing() -> None:
    interruption = Interruption()
    with interruption:
        pass

    interruption.interrupt(Draining("late"))

    await asyncio.sleep(0)


async def test_nothing_is_admitted_once_the_drain_has_begun() -> None:
    lifecycle = Lifecycle()
    lifecycle.admit()

    lifecycle.begin_drain()

    with pytest.raises(Draining):
        lifecycle.admit()


async def test_a_call_admitted_before_the_drain_may_still_begin_until_the_cut() -> None:
    lifecycle = Lifecycle()
    lifecycle.begin_drain()
    early = Interruption()
    lifecycle.enter(early)
    lifecycle.leave(early)

    await lifecycle.cut()

    with pytest.raises(Draining):
        lifecycle.enter(Interruption())


async def test_the_cut_ends_what_runs_and_waits_for_it_to_unwind() -> None:
    lifecycle, interruption, began = Lifecycle(), Interruption(), asyncio.Event()

    async def call() -> str:
        lifecycle.enter(interruption)
        try:
            return await held(interruption, began)
        finally:
            lifecycle.leave(interruption)

    task = asyncio.create_task(call())
    await began.wait()
    lifecycle.begin_drain()
    assert lifecycle.running == 1

    await lifecycle.cut()

    assert lifecycle.running == 0
    assert await task == "Draining"


async def test_the_cut_does_not_wait_for_ever() -> None:
    lifecycle = Lifecycle()
    lifecycle.enter(Interruption())

    with pytest.raises(TimeoutError):
        await lifecycle.cut(grace_seconds=0.01)
