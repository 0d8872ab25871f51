"""What each head of the demo model does: an oracle that reads eager attention weights.

Shape suffixes: L layers, H query heads, B batch, Q and K positions.
"""

from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from attnscope.models.demo_data import SPECIAL_TOKENS, repeated_tokens, text_rows

LOCAL_KEYS = 8
RANDOM_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadScores:
    """Diagnostics of every head, each float32 ``[L, H]``, and how well the model predicts.

    ``induction`` is the mean weight, on random tokens said twice, from a position in the second
    copy to the token after its own token's first occurrence (C. Olsson et al., "In-context
    learning and induction heads", 2022, where it is called prefix matching); ``previous_token``
    the mean weight on the key before the query; ``sink`` the mean weight on the first token;
    ``local`` the mean weight on the last eight keys, the query's own included; ``distance`` the
    mean distance from query to key in tokens. The last four are measured on held-out text.
    """

    induction: Tensor
    previous_token: Tensor
    sink: Tensor
    local: Tensor
    distance: Tensor
    text_loss: float
    random_loss: float


def attention_of(model: PreTrainedModel, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Eager attention weights ``[L, B, H, Q, K]`` and logits ``[B, T, vocabulary]``.

    Raises:
        ValueError: where the model does not run eager attention, and so returns no weights.
    """
    if model.config._attn_implementation != "eager":
        raise ValueError("the scores need attn_implementation='eager'; load the model with it")
    model.eval()
    with torch.no_grad():
        output = model(input_ids=tokens_BT, output_attentions=True, use_cache=False)
    return torch.stack(output.attentions), output.logits


def head_scores(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    *,
    seed: int = 7,
    period: int = 32,
    ids: tuple[int, int] | None = None,
    text_shape: tuple[int, int] = (8, 256),
) -> HeadScores:
    """Measure every head on held-out repeated random tokens and held-out text.

    Args:
        model: a causal language model that runs eager attention.
        tokenizer: its tokenizer.
        seed: of the held-out documents (an odd seed of the generator) and of the random tokens.
        period: length of the random segment, in tokens; it stands twice in each of 16 sequences.
        ids: first token id and one past the last, for random tokens; all but the special ones.
        text_shape: rows and length of the text sequences.
    """
    tokens_BT, _ = repeated_tokens(
        rows=RANDOM_ROWS,
        length=2 * period + 1,
        periods=(period, period),
        ids=ids or (SPECIAL_TOKENS, tokenizer.get_vocab_size()),
        generator=torch.Generator().manual_seed(1_000_000_007 + seed),
    )
    weights_LBHQK, logits = attention_of(model, tokens_BT)
    second = slice(period + 1, 2 * period + 1)  # position 0 is BEGIN
    # The diagonal of queries q and keys q - period + 1.
    induction = weights_LBHQK[..., second, 2:].diagonal(0, 3, 4).mean(dim=(1, 3))
    random_loss = functional.cross_entropy(
        logits[:, second][:, :-1].flatten(0, 1), tokens_BT[:, second][:, 1:].flatten()
    )

    text_BT = held_out_text(tokenizer, rows=text_shape[0], length=text_shape[1], seed=seed)
    weights_LBHQK, logits = attention_of(model, text_BT)
    text_loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), text_BT[:, 1:].flatten())
    position = torch.arange(text_shape[1])
    distance_QK = (position[:, None] - position[None, :]).clamp(min=0)
    last_QK = distance_QK < LOCAL_KEYS
    # Queries whose last eight keys reach the first token say nothing about locality or sinks.
    far_LBHQK = weights_LBHQK[:, :, :, LOCAL_KEYS:]
    return HeadScores(
        induction=induction,
        previous_token=weights_LBHQK.diagonal(-1, 3, 4)[..., 1:].mean(dim=(1, 3)),
        sink=far_LBHQK[..., 0].mean(dim=(1, 3)),
        local=(far_LBHQK * last_QK[LOCAL_KEYS:]).sum(-1).mean(dim=(1, 3)),
        distance=(far_LBHQK * distance_QK[LOCAL_KEYS:]).sum(-1).mean(dim=(1, 3)),
        text_loss=float(text_loss),
        random_loss=float(random_loss),
    )


def held_out_text(tokenizer: Tokenizer, *, rows: int, length: int, seed: int) -> Tensor:
    """Packed documents of an odd seed, which training never draws: int64 ``[B, T]``."""
    return text_rows(tokenizer, rows=rows, length=length, rng=Random(2 * seed + 1))


def unigram_loss(tokenizer: Tokenizer, text_BT: Tensor, *, seed: int = 0) -> float:
    """Nats a token of the best model that knows only how frequent each token is.

    Frequencies come from training text (``seed``), with one added to every count.
    """
    train_BT = text_rows(tokenizer, rows=64, length=1024, rng=Random(2 * seed))
    counts = torch.bincount(train_BT.flatten(), minlength=tokenizer.get_vocab_size()) + 1
    log_share = (counts / counts.sum()).log()
    return float(-log_share[text_BT[:, 1:]].mean())
