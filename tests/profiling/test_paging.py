"""Serving by pages and by stretches: every slot accounted for, and the kernel reads what was placed."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.paged import paged, write_pages
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.reference import reference
from attnscope.models.shape import shape_of
from attnscope.profiling.paging import STATES, Request, Scheme, Timeline, requests, slot_bytes
from attnscope.profiling.serving import serve

SCHEMES: tuple[Scheme, ...] = ("paged", "exact", "longest")
STREAM = requests(40, seed=3, gap=3.0, prompt=(4, 60), generated=(4, 60))


def served(scheme: Scheme, pool: int = 320) -> Timeline:
    return serve(STREAM, scheme, pool=pool, page=8)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("pool", [128, 320, 10_000])
def test_no_slot_has_two_owners_and_every_slot_is_accounted_for(scheme: Scheme, pool: int) -> None:
    timeline = served(scheme, pool)
    for moment in timeline.moments:
        owners = np.zeros(timeline.pool, int)
        for one in moment.placements:
            for stretch in one.stretches:
                owners[stretch.start : stretch.stop] += 1
            assert one.written <= one.held
            assert one.written <= one.wanted
        assert owners.max(initial=0) <= 1
        assert owners.sum() == moment.held
        counted = (moment.written, moment.reserved, moment.never, moment.unusable, moment.free)
        assert sum(counted) == timeline.pool
        assert min(counted) >= 0
        assert moment.written == sum(one.written for one in moment.placements)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_request_is_served_to_its_end_first_come_first_served(scheme: Scheme) -> None:
    timeline = served(scheme)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for moment in timeline.moments:
        for one in moment.placements:
            first.setdefault(one.request, moment.step)
            last[one.request] = one.written
    assert last == {request.number: request.tokens for request in STREAM}
    starts = [first[request.number] for request in STREAM]
    assert starts == sorted(starts)
    assert all(start >= request.arrival for start, request in zip(starts, STREAM, strict=True))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_with_room_for_all_a_request_runs_from_its_arrival_a_step_a_token(scheme: Scheme) -> None:
    timeline = served(scheme, 10_000)
    most = max(request.tokens for request in STREAM)
    for moment in timeline.moments:
        running = [one for one in STREAM if 0 <= moment.step - one.arrival < one.generated]
        assert [one.request for one in moment.placements] == [one.number for one in running]
        assert not moment.waiting
        written = [one.prompt + moment.step - one.arrival + 1 for one in running]
        assert [one.written for one in moment.placements] == written
        held = {
            "paged": sum(-(-tokens // 8) * 8 for tokens in written),
            "exact": sum(one.tokens for one in running),
            "longest": most * len(running),
        }
        assert moment.held == held[scheme]


def test_pages_waste_less_than_a_page_a_sequence_and_serve_more_at_once() -> None:
    by = {scheme: served(scheme) for scheme in SCHEMES}
    for moment in by["paged"].moments:
        assert moment.held - moment.written < 8 * max(len(moment.placements), 1)
        assert moment.unusable == 0
    assert by["paged"].utilisation > by["exact"].utilisation > by["longest"].utilisation
    assert by["paged"].mean_running > by["longest"].mean_running
    assert len(by["paged"].moments) < len(by["longest"].moments)
    assert by["paged"].preemptions > 0
    assert by["longest"].preemptions == by["exact"].preemptions == 0


def request(number: int, arrival: int, prompt: int, generated: int) -> Request:
    return Request(number=number, arrival=arrival, prompt=prompt, generated=generated)


HOLES = [request(0, 0, 2, 1), request(1, 0, 2, 6), request(2, 0, 3, 1), request(3, 1, 4, 1)]
"""Two short ones on either side of a long one leave room for the fourth, in two pieces."""


def test_holes_that_are_too_short_are_external_fragmentation() -> None:
    timeline = serve(HOLES, "exact", pool=15)
    moment = timeline.moment(1)
    assert [one.request for one in moment.placements] == [1]
    # Slots 0-2 and 11-14 are free: seven, and the fourth wants five in a row.
    assert (moment.waiting, moment.unusable, moment.free) == ((3,), 7, 0)
    # By pages of one slot it comes in at once.
    assert [one.request for one in serve(HOLES, "paged", pool=15, page=1).moment(1).placements] == [
        1,
        3,
    ]


def test_the_last_that_came_in_makes_room_and_is_served_later() -> None:
    stream = [request(0, 0, 4, 8), request(1, 0, 4, 8)]
    timeline = serve(stream, "paged", pool=16, page=4)
    assert timeline.preemptions == 1
    tables = [timeline.block_table(step)[0] for step in range(len(timeline.moments))]
    assert tables[0] == (0, 1)
    assert (0,) in tables
    assert tables[-1] == (1,)
    # What it had generated is not generated again.
    ran = sum((1 in numbers) for numbers in tables)
    assert ran == 8


def test_the_kernel_reads_the_tokens_through_the_block_table_of_any_moment() -> None:
    timeline = served("paged")
    generator = torch.Generator().manual_seed(0)
    for step in (0, 20, 60):
        _, table_BN, lengths_B = timeline.block_table(step)
        pools = tuple(torch.full((timeline.pool // 8, 8, 2, 16), torch.nan) for _ in "kv")
        sequences = []
        for pages_N, length in zip(table_BN, lengths_B, strict=True):
            kv = [torch.randn(int(length), 2, 16, generator=generator) for _ in "kv"]
            named = torch.from_numpy(pages_N[pages_N >= 0])
            for pool, tokens in zip(pools, kv, strict=True):
                write_pages(tokens, pool, named)
            sequences.append([one.transpose(0, 1)[None] for one in kv])
        q_BHQD = torch.randn(len(lengths_B), 4, 1, 16, generator=generator)
        found = paged(
            q_BHQD,
            *pools,
            table_BN=torch.from_numpy(table_BN),
            lengths_B=torch.from_numpy(lengths_B),
        )
        for row, kv in enumerate(sequences):
            k_BGKD, v_BGKD = kv
            tensors = q_BHQD[row : row + 1], k_BGKD, v_BGKD
            exact = reference(*tensors, AttentionCall.of(*tensors, pattern=Causal()))
            torch.testing.assert_close(
                found.out_BHQD[row : row + 1].double(), exact.out_BHQD, rtol=1e-5, atol=1e-5
            )


def test_bytes_are_slots_times_what_the_calculator_says_of_a_token() -> None:
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=96,
    )
    size = slot_bytes(shape_of(config), "bfloat16")
    assert size == 2 * 3 * 2 * 8 * 2
    timeline = serve(STREAM, "paged", pool=320, page=8, slot_bytes=size)
    held = [moment.held * size for moment in timeline.moments]
    assert timeline.nbytes("held").tolist() == held
    kinds = ("written", "reserved", "never", "unusable", "free")
    parts = np.sum([timeline.nbytes(kind) for kind in kinds], 0)
    assert set(parts.tolist()) == {timeline.pool * size}


def test_the_map_of_slots_is_what_the_moment_counts() -> None:
    for scheme in SCHEMES:
        timeline = served(scheme)
        for moment in timeline.moments[::7]:
            owner, state = timeline.slots(moment.step)
            counted = [int((state == kind).sum()) for kind in range(len(STATES))]
            free = moment.free + moment.unusable
            assert counted == [free, moment.written, moment.reserved, moment.never]
            for one in moment.placements:
                mine = [slot for stretch in one.stretches for slot in stretch]
                assert (owner[mine] == one.request).all()
                assert (state[mine[: one.written]] == STATES.index("written")).all()
            assert ((owner == -1) == (state == STATES.index("free"))).all()


def test_a_stream_follows_from_its_seed_within_its_bounds() -> None:
    assert requests(20, seed=1) == requests(20, seed=1)
    assert requests(20, seed=1) != requests(20, seed=2)
    stream = requests(2000, seed=0, gap=2.0, prompt=(5, 50), generated=(1, 9))
    assert {request.prompt for request in stream} == set(range(5, 51))
    assert {request.generated for request in stream} == set(range(1, 10))
    assert stream[-1].arrival / len(stream) == pytest.approx(2.0, rel=0.1)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"scheme": "heap"}, "No scheme 'heap'"),
    ({"stream": []}, "needs a request"),
    ({"page": 0}, "got 40, 320, 0 and 1"),
    ({"pool": 40}, "slots, and the pool has 40"),
    ({"longest": 10}, "and the longest may have 10"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG)
def test_what_has_no_meaning_is_refused(wrong: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"stream": STREAM, "scheme": "paged", "pool": 320, "page": 8} | wrong
    with pytest.raises(InvalidCall, match=words):
        serve(given.pop("stream"), given.pop("scheme"), **given)


def test_what_is_not_there_is_refused() -> None:
    timeline = served("exact")
    with pytest.raises(InvalidCall, match="has no pages"):
        timeline.block_table(0)
    with pytest.raises(InvalidCall, match="There is no step 99999"):
        timeline.moment(99_999)
    with pytest.raises(InvalidCall, match="got 0 to 4"):
        requests(3, prompt=(0, 4))
    with pytest.raises(InvalidCall, match="got 0 and 4"):
        requests(0)
