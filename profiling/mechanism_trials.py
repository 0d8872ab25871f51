"""What is timed of mechanisms that are no call of a backend: pages, latents, positions; beside dense attention.

Every trial stands beside "dense", eager attention over the same tokens. "mechanism" is the mechanism;
"everything" is what does the same without it.

B batch, H query heads, Q, K positions, D head dim, V value dim; C latent width, R dimensions that turn,
S slots of a page, P pages, n tokens, W width of the model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnscope.kernels import positions
from attnscope.kernels.backends.backend import Backend
from attnscope.kernels.call import AttentionCall, Dtype
from attnscope.kernels.paged import paged, write_pages
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.registry import backend
from attnscope.profiling.cache_growth import PAGE
from attnscope.profiling.call_bench import Trial, random_inputs

if TYPE_CHECKING:
    from attnscope.profiling.latency import Call

Trials = dict[str, Trial]

SEQUENCES = 4
"""That share the pool of pages."""
DECODERS = ("triton_decode", "tiled")
"""Run a new token's attention; the first that takes the call does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """What a layer is like.

    Attributes:
        heads: H, each with keys and values of its own.
        head_dim: D, of queries, keys and values.
        dtype: Of all tensors.
    """

    heads: int
    head_dim: int
    dtype: Dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """The widths of multi-head latent attention.

    Attributes:
        rank: C, of the latent of keys and values.
        turned: R, dimensions that carry the rotary position, shared by all heads.
        own: Of each head's key, besides those.
        value: V.
    """

    rank: int
    turned: int
    own: int
    value: int


DEEPSEEK = Latents(rank=512, turned=64, own=128, value=128)
"""DeepSeek-V3's (arXiv 2412.19437 §4.2)."""


def paged_trials(length: int, heads: Heads, device: torch.device) -> Trials:
    """A new token of a few sequences, its cache in shuffled pages, and in one stretch a sequence."""
    call = _decoding(length, heads, batch=SEQUENCES)
    runner = _first_of(DECODERS, call, device)
    reader = "Triton paged decode" if runner.name == "triton_decode" else "Tiled, page by page"
    return {
        "dense": Trial.of(backend("eager"), call, device),
        "mechanism": Trial(
            title=reader,
            over=f"pages of {PAGE} tokens, through the block table",
            make=partial(_paged, call, device),
        ),
        "everything": Trial(
            title=runner.title,
            over="the same cache, contiguous",
            make=Trial.of(runner, call, device).make,
            backend=runner.name,
        ),
    }


def latent_trials(
    length: int, heads: Heads, device: torch.device, *, widths: Latents = DEEPSEEK
) -> Trials:
    """A new token over a cache of latents: absorbed, expanded anew, and over keys and values that were kept.

    The three are one function (arXiv 2405.04434 §2.1.2): folding the projections into the query and the
    output is a matter of the order of products.
    """
    make = partial(Decoding, length, heads, device, widths)
    expanded = _latent_call(length, heads, widths)
    absorbed = _absorbed_call(length, heads, widths)
    return {
        "dense": Trial(
            title="Eager (dense)",
            over=f"keys of {expanded.head_dim} and values of {expanded.value_dim}, kept expanded",
            make=lambda: make().kept(backend("eager")),
            backend="eager",
        ),
        "mechanism": Trial(
            title="Absorbed",
            over=f"latents of {absorbed.head_dim}, projections folded into the query",
            make=lambda: make().absorbed,
        ),
        "everything": Trial(
            title="Expanded each step",
            over="keys and values of every head, made of the latents first",
            make=lambda: make().expanded,
        ),
    }


class Decoding:
    """One step of latent attention, with the numbers of its cache and of its projections.

    Args:
        length: K, tokens of the cache.
        heads: H and the dtype; their width is the latents' business.
        device: Where the tensors are.
        widths: Of the latents.
        seed: Of the numbers, standard normal; the projections keep their scale.
    """

    def __init__(
        self,
        length: int,
        heads: Heads,
        device: torch.device,
        widths: Latents,
        seed: int = 0,
    ) -> None:
        self._calls = (
            _latent_call(length, heads, widths),
            _absorbed_call(length, heads, widths),
        )
        self._widths = widths
        self._runner = _first_of(DECODERS, self._calls[1], device)
        draw = torch.Generator().manual_seed(seed)

        def normal(*shape: int, scale: float = 1.0) -> Tensor:
            numbers = torch.randn(shape, generator=draw) * scale
            return numbers.to(device, self._calls[0].torch_dtype)

        shrunk = widths.rank**-0.5
        self.q_BHQD = normal(1, heads.heads, 1, widths.own + widths.turned)
        self.cache_BKC = normal(1, length, widths.rank + widths.turned)
        self.up_keys_HDC = normal(heads.heads, widths.own, widths.rank, scale=shrunk)
        self.up_values_HVC = normal(heads.heads, widths.value, widths.rank, scale=shrunk)

    @property
    def cache_bytes(self) -> int:
        """Of the latents and of the dimensions that turn."""
        return self.cache_BKC.nbytes

    def expanded_cache(self) -> tuple[Tensor, Tensor]:
        """Keys and values of every head, `[1, H, K, D]` and `[1, H, K, V]`."""
        latent_BKC, turned_BKR = self.cache_BKC.split([self._widths.rank, self._widths.turned], -1)
        own_BHKD = latent_BKC[:, None] @ self.up_keys_HDC.mT
        shared_BHKR = turned_BKR[:, None].expand(-1, own_BHKD.shape[1], -1, -1)
        return torch.cat([own_BHKD, shared_BHKR], -1), latent_BKC[:, None] @ self.up_values_HVC.mT

    def kept(self, runner: Backend) -> Callable[[], Tensor]:
        """Attention over keys and values that were expanded beforehand, `[1, H, 1, V]`."""
        keys_BHKD, values_BHKV = self.expanded_cache()
        run = partial(runner.run, self.q_BHQD, keys_BHKD, values_BHKV, self._calls[0])
        return lambda: run().out_BHQD

    def expanded(self) -> Tensor:
        """Keys and values are made of the latents, then attended to: `[1, H, 1, V]`."""
        runner = _first_of(DECODERS, self._calls[0], self.q_BHQD.device)
        return runner.run(self.q_BHQD, *self.expanded_cache(), self._calls[0]).out_BHQD

    def absorbed(self) -> Tensor:
        """Attention over the latents themselves, one key/value head for all: `[1, H, 1, V]`."""
        own_BHQD, turned_BHQR = self.q_BHQD.split([self._widths.own, self._widths.turned], -1)
        q_BHQC = torch.cat([own_BHQD @ self.up_keys_HDC, turned_BHQR], -1)
        keys_BGKC = self.cache_BKC[:, None]
        values_BGKC = keys_BGKC[..., : self._widths.rank]
        mixed_BHQC = self._runner.run(q_BHQC, keys_BGKC, values_BGKC, self._calls[1]).out_BHQD
        return mixed_BHQC @ self.up_values_HVC.mT


def rotary_trials(length: int, heads: Heads, device: torch.device) -> Trials:
    """Turning q and k of a layer to their positions."""
    call = _causal(length, heads)
    return {
        "dense": Trial.of(backend("eager"), call, device),
        "mechanism": Trial(
            title="RoPE", over="q and k, angles included", make=partial(_turned, call, device)
        ),
    }


def added_trials(length: int, heads: Heads, device: torch.device) -> Trials:
    """Looking a vector up for each position, and adding it to the token."""
    call = _causal(length, heads)
    return {
        "dense": Trial.of(backend("eager"), call, device),
        "mechanism": Trial(
            title="Positions added",
            over=f"one vector of {heads.heads * heads.head_dim} a token",
            make=partial(_added, call, device),
        ),
    }


def biased_trials(length: int, heads: Heads, device: torch.device) -> Trials:
    """Attention whose scores are lowered by the distance, and without that."""
    call, tiled = _causal(length, heads), backend("tiled")
    return {
        "dense": Trial.of(backend("eager"), call, device),
        "mechanism": Trial(
            title=f"{tiled.title} with ALiBi",
            over="causal, a slope a head",
            make=partial(_biased, tiled, call, device),
            backend=tiled.name,
        ),
        "everything": Trial.of(tiled, call, device),
    }


def _paged(call: AttentionCall, device: torch.device) -> "Call":
    """The keys of `Trial.of(call)`, written into pages of one pool in a drawn order."""
    q_BHQD, k_BGKD, v_BGKD = random_inputs(call, device, 0)
    pages = -(-call.key_length // PAGE)
    drawn = torch.randperm(call.batch * pages, generator=torch.Generator().manual_seed(0))
    table_BN = drawn.view(call.batch, pages).to(device)
    pools = []
    for t_BGKD in (k_BGKD, v_BGKD):
        pool_PSGD = t_BGKD.new_empty(len(drawn), PAGE, t_BGKD.shape[1], t_BGKD.shape[3])
        for t_GKD, pages_N in zip(t_BGKD, table_BN, strict=True):
            write_pages(t_GKD.transpose(0, 1), pool_PSGD, pages_N)
        pools.append(pool_PSGD)
    lengths_B = torch.full((call.batch,), call.key_length, device=device)
    given = {"table_BN": table_BN, "lengths_B": lengths_B, "pattern": Full()}
    return partial(_paged_decode(device), q_BHQD, *pools, **given)


def _paged_decode(device: torch.device) -> Callable[..., object]:
    if device.type != "cuda":
        return paged
    from attnscope.kernels.triton.paged import paged_decode

    return paged_decode


def _turned(call: AttentionCall, device: torch.device) -> "Call":
    q_BHQD, k_BHKD, _ = random_inputs(call, device, 0)
    rotary = positions.Rotary(frequencies_F=positions.frequencies(call.head_dim).float().to(device))
    at_n = torch.arange(call.query_length, device=device)
    return lambda: (rotary.turned(q_BHQD, at_n), rotary.turned(k_BHKD, at_n))


def _added(call: AttentionCall, device: torch.device) -> "Call":
    width = call.query_heads * call.head_dim
    table_nW = positions.sinusoidal(call.query_length, width).to(device, call.torch_dtype)
    x_BnW = torch.zeros(call.batch, *table_nW.shape).to(table_nW)
    at_n = torch.arange(call.query_length, device=device)
    return lambda: x_BnW + table_nW[at_n]


def _biased(runner: Backend, call: AttentionCall, device: torch.device) -> "Call":
    """With ALiBi (arXiv 2108.12409) as a bias by distance."""
    biased = replace(call, has_distance_bias=True)
    runner.check(biased, device)
    keys_ahead_R = torch.arange(1 - call.query_length, call.key_length)
    bias_HR = (positions.alibi_slopes(call.query_heads)[:, None] * keys_ahead_R).to(device)
    run = partial(runner.run, *random_inputs(call, device, 0), biased, distance_bias_HR=bias_HR)
    return lambda: run().out_BHQD


def _causal(length: int, heads: Heads) -> AttentionCall:
    return _call(length, length, heads.heads, (heads.head_dim, heads.head_dim), heads.dtype)


def _decoding(length: int, heads: Heads, *, batch: int) -> AttentionCall:
    widths = heads.head_dim, heads.head_dim
    return _call(1, length, heads.heads, widths, heads.dtype, batch=batch)


def _latent_call(length: int, heads: Heads, widths: Latents) -> AttentionCall:
    return _call(1, length, heads.heads, (widths.own + widths.turned, widths.value), heads.dtype)


def _absorbed_call(length: int, heads: Heads, widths: Latents) -> AttentionCall:
    return _call(
        1,
        length,
        heads.heads,
        (widths.rank + widths.turned, widths.rank),
        heads.dtype,
        kv_heads=1,
        # Of the keys as they would be expanded: the products are the same numbers.
        scale=(widths.own + widths.turned) ** -0.5,
    )


def _call(
    queries: int,
    keys: int,
    heads: int,
    widths: tuple[int, int],
    dtype: Dtype,
    *,
    batch: int = 1,
    kv_heads: int | None = None,
    scale: float | None = None,
) -> AttentionCall:
    """Causal, or of one new token, which sees all there is."""
    return AttentionCall(
        batch=batch,
        query_heads=heads,
        kv_heads=kv_heads or heads,
        query_length=queries,
        key_length=keys,
        head_dim=widths[0],
        value_dim=widths[1],
        dtype=dtype,
        scale=scale or widths[0] ** -0.5,
        pattern=Full() if queries == 1 else Causal(),
        query_offset=keys - queries,
    )


def _first_of(names: tuple[str, ...], call: AttentionCall, device: torch.device) -> Backend:
    found = (backend(name) for name in names)
    return next(one for one in found if one.refuses(call, device) is None)


MAKERS: Mapping[str, Callable[[int, Heads, torch.device], Trials]] = MappingProxyType(
    {
        "paged": paged_trials,
        "latent": latent_trials,
        "rotary": rotary_trials,
        "added": added_trials,
        "biased": biased_trials,
    }
)
"""By what a card says that it times."""
