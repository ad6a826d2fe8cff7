"""A model in several hands: nobody's block changes what another computes, and none is left over."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palscope._models import turns
from palscope._routing import Route
from palscope.errors import HookError, RouteError
from tests import tiny

CLIPS = [[31]]
ATTENDING = Route.plits(tiny.LAYERS).with_audio_queries()
ROUTES = (ATTENDING, Route.lal(tiny.LAYERS), Route.lal(tiny.LAYERS, [1]))


def cut_all(layer: int, queries: Any, keys: Any, visible: Any) -> Any:
    """All edges to the first four columns, of queries behind them."""
    late, early = queries[:, None, :, None] > 4, keys[:, None, None, :] < 4
    return (late & early) & visible[:, None]


@pytest.fixture(scope="module")
def made() -> Any:
    return tiny.model(Route.plits(tiny.LAYERS))


@pytest.fixture(scope="module")
def batch() -> Any:
    return tiny.batch(CLIPS, streams=Route.plits(1).streams)


def logits(model: Any, batch: Any) -> Any:
    with torch.no_grad():
        return model(**batch).logits


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.05)


BLOCKS: dict[str, Any] = {
    "a route": lambda made: made.routed(ROUTES[1]),
    "audio queries": lambda made: made.routed(ATTENDING),
    "cut edges": lambda made: made.cutting(cut_all),
    "a recording": lambda made: made.recording_attention(lambda seen: None),
    "none": lambda made: ExitStack(),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_another_thread_computes_as_if_alone(made: Any, batch: Any, name: str) -> None:
    plain, route = logits(made, batch), made.route
    with BLOCKS[name](made):
        changed = logits(made, batch)
    assert torch.equal(plain, changed) is (name in ("a recording", "none"))
    together = threading.Barrier(2)

    def within() -> list[bool]:
        found: list[bool] = []
        together.wait()
        for _ in range(10):
            with BLOCKS[name](made):
                found += [torch.equal(logits(made, batch), changed) for _ in range(2)]
        return found

    def outside() -> list[bool]:
        together.wait()
        return [torch.equal(logits(made, batch), plain) for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(within), pool.submit(outside)]
        assert all(each for one in both for each in one.result())
    assert made.route == route and torch.equal(logits(made, batch), plain)


def test_two_threads_that_feed_some_tokens_alone(made: Any, batch: Any) -> None:
    """Audio that skips the feed-forward network is taken out of it by hooks of one pass."""
    mixed = tiny.model(ATTENDING)
    other = tiny.batch([[55], [12]], streams=Route.plits(1).streams)
    wanted = [logits(mixed, each) for each in (batch, other)]

    def run(number: int) -> bool:
        given = (batch, other)[number % 2]
        return torch.equal(logits(mixed, given), wanted[number % 2])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(24)))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_blocks_end_in_any_order_and_the_last_open_one_holds(data: Any) -> None:
    """Invariant: what holds is a function of the blocks that are open, not of their history."""
    made = _DRAWN
    base = made.route
    still: list[tuple[ExitStack, str, Any]] = []
    for _ in range(data.draw(st.integers(1, 8), "steps")):
        if still and data.draw(st.booleans(), "close"):
            still.pop(data.draw(st.integers(0, len(still) - 1), "which"))[0].close()
        else:
            stack, kind = ExitStack(), data.draw(st.sampled_from(["route", "cut"]), "kind")
            value = data.draw(st.sampled_from(ROUTES), "route") if kind == "route" else object()
            stack.enter_context(made.routed(value) if kind == "route" else made.cutting(value))
            still.append((stack, kind, value))
        routes = [value for _, kind, value in still if kind == "route"]
        assert made.route == (routes[-1] if routes else base)
        assert made.current_cuts == tuple(value for _, kind, value in still if kind == "cut")
    for stack, _, _ in still:
        stack.close()
    assert made.route == base and made.current_cuts == ()


_DRAWN: Any = tiny.model(Route.plits(tiny.LAYERS))


def test_a_block_that_another_thread_does_not_leave_is_named(
    made: Any, batch: Any, impatient: None
) -> None:
    opened, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with made.turns.block("hooks"):
            opened.set()
            leave.wait()

    thread = threading.Thread(target=hold, name="a visitor")
    thread.start()
    opened.wait()
    try:
        assert made.route == Route.plits(tiny.LAYERS)
        for call in (
            lambda: made(**batch),
            lambda: made.generate(**batch, max_new_tokens=1),
            lambda: made.encode_audio(batch["input_features"], batch["feature_lengths"]),
            lambda: made.turns.block("training step").__enter__(),
            lambda: setattr(made, "route", ROUTES[0]),
        ):
            with pytest.raises(HookError, match=r"a block of hooks is open in thread 'a visitor'"):
                call()
    finally:
        leave.set()
        thread.join()
    assert logits(made, batch).isfinite().all()


def test_tasks_of_one_thread_do_not_mix(made: Any, batch: Any) -> None:
    """A task takes its own route; it cannot wait for another of its thread, so it is told."""
    plain, routed = logits(made, batch), None
    with made.routed(ROUTES[1]):
        routed = logits(made, batch)
    found: list[str] = []

    async def within(opened: asyncio.Event, leave: asyncio.Event) -> None:
        with made.routed(ROUTES[1]):
            with made.turns.block("hooks"):
                opened.set()
                await leave.wait()
                found.append("own" * torch.equal(logits(made, batch), routed))
                in_thread = await asyncio.to_thread(logits, made, batch)
                found.append("thread" * torch.equal(in_thread, routed))
            await asyncio.sleep(0)
            found.append("still" * torch.equal(logits(made, batch), routed))

    async def outside() -> None:
        opened, leave = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(within(opened, leave))
        await opened.wait()
        with pytest.raises(HookError, match="in another task or context of this thread"):
            logits(made, batch)
        leave.set()
        await task
        found.append("after" * torch.equal(logits(made, batch), plain))

    asyncio.run(outside())
    assert found == ["own", "thread", "still", "after"]


def test_a_generator_may_be_closed_elsewhere(made: Any, batch: Any) -> None:
    plain = logits(made, batch)

    def held() -> Any:
        with made.routed(ROUTES[1]), made.turns.block("hooks"):
            yield logits(made, batch)

    generator = held()
    assert not torch.equal(next(generator), plain)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(generator.close).result()
    assert made.route == Route.plits(tiny.LAYERS) and torch.equal(logits(made, batch), plain)

    generator = held()
    contextvars.copy_context().run(next, generator)
    with pytest.raises(HookError, match="another task or context"):
        logits(made, batch)
    generator.close()
    assert torch.equal(logits(made, batch), plain)


@pytest.mark.parametrize("name", BLOCKS)
def test_between_two_passes_of_a_block_others_have_theirs(
    made: Any, batch: Any, name: str, impatient: None
) -> None:
    """What a pass looks up keeps nobody waiting."""
    plain, order = logits(made, batch), list[str]()
    with BLOCKS[name](made):
        changed = logits(made, batch)
    started = threading.Event()

    def sweep() -> bool:
        alike: list[bool] = []
        with BLOCKS[name](made):
            for _ in range(40):
                alike.append(torch.equal(logits(made, batch), changed))
                order.append("sweep")
                started.set()
        return all(alike)

    def visit() -> bool:
        started.wait()
        alike = [torch.equal(logits(made, batch), plain) for _ in range(5)]
        order.append("visit")
        return all(alike)

    with ThreadPoolExecutor(2) as pool:
        assert all(each.result() for each in [pool.submit(sweep), pool.submit(visit)])
    assert order.index("visit") < 25


def test_who_passes_again_stands_behind_who_waits() -> None:
    shared, started, order = turns.Turns(), threading.Event(), list[str]()

    def sweep() -> None:
        for _ in range(40):
            with shared.passing():
                started.set()
                time.sleep(0.002)
                order.append("sweep")

    def visit() -> None:
        started.wait()
        for _ in range(5):
            with shared.passing():
                order.append("visit")

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(sweep), pool.submit(visit)]:
            each.result()
    last = len(order) - order[::-1].index("visit")
    assert last <= 15


def test_a_host_may_end_the_work_between_two_passes(
    made: Any, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(BaseException):
        pass

    plain, asked = logits(made, batch), itertools.count()

    def look() -> None:
        if next(asked) == 3:
            raise Stopped

    monkeypatch.setattr(turns, "before_turn", look)
    with pytest.raises(Stopped), made.routed(ROUTES[1]):
        for _ in range(10):
            logits(made, batch)
    monkeypatch.undo()
    assert torch.equal(logits(made, batch), plain)


def test_a_route_is_not_set_beneath_a_block(made: Any) -> None:
    with made.routed(ROUTES[1]):
        with pytest.raises(RouteError, match="within a block"):
            made.route = ROUTES[0]
        assert made.route == ROUTES[1]


def test_a_copy_is_in_nobody_s_hands(made: Any, batch: Any) -> None:
    plain = logits(made, batch)
    with made.routed(ROUTES[1]):
        other = copy.deepcopy(made)
        assert other.route == Route.plits(tiny.LAYERS)
        assert torch.equal(logits(other, batch), plain)


def test_a_pass_within_a_pass_leaves_the_outer_one_its_run(made: Any, batch: Any) -> None:
    seen: list[Any] = []

    def call(module: Any, args: Any, output: Any) -> None:
        if not seen:
            seen.append(made.current_run)
            logits(made, batch)
            seen.append(made.current_run)

    handle = made.decoder.layers[0].register_forward_hook(call)
    try:
        logits(made, batch)
    finally:
        handle.remove()
    assert seen[0] is seen[1] and seen[0] is not None and made.current_run is None


def test_layers_are_not_run_again_without_the_hooks_they_ran_with() -> None:
    """Under gradient checkpointing the backward pass may come after the block of the hooks."""
    trained = tiny.model(Route.plits(tiny.LAYERS)).train()
    given = tiny.batch(CLIPS, streams=Route.plits(1).streams)
    given["labels"] = torch.where(given["input_ids"] == tiny.AUDIO_ID, -100, given["input_ids"])

    def gradient() -> Any:
        trained.zero_grad()
        with trained.turns.block("hooks"):
            handle = trained.decoder.layers[1].register_forward_hook(halved)
            loss = trained(**given).loss
            handle.remove()
        loss.backward()
        return trained.decoder.layers[0].mlp.down_proj.weight.grad.clone()

    def halved(module: Any, args: Any, output: Any) -> Any:
        return output / 2

    wanted = gradient()
    trained.gradient_checkpointing_enable()
    torch.testing.assert_close(gradient(), wanted)
