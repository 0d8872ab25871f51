"""What the demo model is trained on: its tokenizer, its batches and its curriculum.

Shape suffixes: B batch, T positions.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from attnscope.models.demo_text.documents import document, document_stream

BEGIN, END = "<|begin|>", "<|end|>"
BEGIN_ID, END_ID = 0, 1
SPECIAL_TOKENS = 2
IGNORED = -100
MAX_POSITIONS = 2048


def train_tokenizer(*, vocabulary: int, documents: int, seed: int) -> Tokenizer:
    """A byte-level BPE of our own text; digits stay single and every text starts with BEGIN.

    Args:
        vocabulary: entries, the 256 bytes and two special tokens included.
        documents: how many generated documents to learn merges from.
        seed: of the documents.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(islice(document_stream(seed), documents), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A $B",
        special_tokens=[(BEGIN, BEGIN_ID), (END, END_ID)],
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` as transformers reads them."""
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One micro-batch: ``tokens`` and ``targets``, int64 ``[B, T]`` (IGNORED: no target)."""

    kind: str
    tokens: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """What a micro-batch may be at one moment of the curriculum."""

    random_share: float
    random_ids: tuple[int, int]
    random_length: int
    periods: tuple[int, int]
    text_lengths: dict[int, float]


def mixture(progress: float, vocabulary: int) -> Mixture:
    """The curriculum at ``progress`` in [0, 1].

    First mostly short repeated random segments of 256 common tokens, on which previous-token heads
    and then induction heads pay at once; then text takes over while the segments come to use all
    tokens and grow, the shortest too, so that generated text does not fall into short loops.
    Repeated random segments never vanish, so that nothing is forgotten.
    """
    ramp = min(max((progress - 0.10) / 0.25, 0.0), 1.0)
    lengths = {256: 1.0}
    if progress > 0.35:
        lengths = {256: 0.8, 1024: 0.2}
    if progress > 0.70:
        lengths = {256: 0.6, 1024: 0.25, 2048: 0.15}
    longest = round(16 + 111 * ramp)
    return Mixture(
        random_share=0.8 - 0.62 * ramp,
        random_ids=(round(258 - 256 * ramp), round(514 + (vocabulary - 514) * ramp)),
        random_length=64 if longest < 32 else 256,
        periods=(round(4 + 12 * ramp), longest),
        text_lengths=lengths,
    )


def repeated_tokens(
    *,
    rows: int,
    length: int,
    periods: tuple[int, int],
    ids: tuple[int, int],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """BEGIN, then a random segment repeated to the end; each row has its own period.

    Returns:
        ``tokens_BT`` int64 ``[rows, length]`` and ``period_B`` int64 ``[rows]``.
    """
    low, high = periods
    period_B = torch.randint(low, high + 1, (rows,), generator=generator)
    segment = torch.randint(*ids, (rows, high), generator=generator)
    position_BT = torch.arange(length - 1)[None, :] % period_B[:, None]
    tokens_BT = torch.full((rows, length), BEGIN_ID)
    tokens_BT[:, 1:] = segment.gather(1, position_BT)
    return tokens_BT, period_B


def random_batch(now: Mixture, *, tokens: int, seed: int) -> Batch:
    """Repeated random segments; the first copy, which nobody can predict, is not a target."""
    length = now.random_length
    generator = torch.Generator().manual_seed(seed)
    tokens_BT, period_B = repeated_tokens(
        rows=tokens // length,
        length=length,
        periods=now.periods,
        ids=now.random_ids,
        generator=generator,
    )
    target_BT = torch.full_like(tokens_BT, IGNORED)
    target_BT[:, :-1] = tokens_BT[:, 1:]
    target_BT[torch.arange(length)[None, :] < period_B[:, None]] = IGNORED
    return Batch(kind="random", tokens=tokens_BT, targets=target_BT)


def text_rows(tokenizer: Tokenizer, *, rows: int, length: int, rng: Random) -> Tensor:
    """Rows of BEGIN and documents, each closed by END, cut at ``length``: int64 ``[B, T]``."""
    packed = []
    for _ in range(rows):
        row = [BEGIN_ID]
        while len(row) < length:
            text = document(rng)
            row += [*tokenizer.encode(text, add_special_tokens=False).ids, END_ID]
        packed.append(row[:length])
    return torch.tensor(packed)


def text_batch(tokenizer: Tokenizer, *, tokens: int, length: int, seed: int) -> Batch:
    """Packed documents of training seeds (even; see ``demo_text.documents``)."""
    tokens_BT = text_rows(tokenizer, rows=tokens // length, length=length, rng=Random(2 * seed))
    target_BT = torch.full_like(tokens_BT, IGNORED)
    target_BT[:, :-1] = tokens_BT[:, 1:]
    return Batch(kind="text", tokens=tokens_BT, targets=target_BT)


def micro_batch(tokenizer: Tokenizer, *, progress: float, tokens: int, seed: int) -> Batch:
    """One micro-batch, drawn from the curriculum at ``progress``: a function of its arguments."""
    now = mixture(progress, tokenizer.get_vocab_size())
    rng = Random(seed)
    if rng.random() < now.random_share:
        return random_batch(now, tokens=tokens, seed=seed)
    (length,) = rng.choices(list(now.text_lengths), list(now.text_lengths.values()))
    return text_batch(tokenizer, tokens=tokens, length=min(length, tokens), seed=seed)
