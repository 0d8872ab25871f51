"""The finished demo model as a folder that transformers loads, with its model card.

Every figure of the card is measured here, on the weights that are being written.
"""

import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedModel

from attnscope.models.demo_data import BEGIN_ID, END_ID, save_tokenizer
from attnscope.models.demo_scores import (
    LOCAL_KEYS,
    HeadScores,
    head_scores,
    held_out_text,
    unigram_loss,
)

CARD_SEED = 7
TABLE_COLUMNS = ("induction", "previous_token", "sink", "local", "distance")
LONG = {"period": 200, "text_shape": (2, 1024)}


def export(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    *,
    log: Path,
    out: Path,
    remark: str = "",
) -> None:
    """Write weights, configuration, tokenizer, training log and card to ``out``.

    Args:
        model: the trained model; it must run eager attention, so that its heads can be scored.
        tokenizer: its tokenizer.
        log: the run's JSON lines.
        out: a folder; made where it is missing, and written over where it is not.
        remark: what the card should say of this run in particular.
    """
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        bos_token_id=BEGIN_ID, eos_token_id=END_ID, pad_token_id=END_ID, max_new_tokens=200
    )
    model.save_pretrained(out)
    save_tokenizer(tokenizer, out)
    shutil.copyfile(log, out / "training_log.jsonl")
    for path in out.iterdir():
        path.chmod(0o644)  # the weights are written for their owner alone
    last = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    (out / "README.md").write_text(card(model, tokenizer, last, remark), encoding="utf-8")


def score_table(scores: HeadScores) -> str:
    """The scores of every head as a Markdown table with two decimals."""
    rows = ["| head | " + " | ".join(name.replace("_", " ") for name in TABLE_COLUMNS) + " |"]
    rows.append("| --- |" + " ---: |" * len(TABLE_COLUMNS))
    layers, heads = scores.induction.shape
    for layer in range(layers):
        for head in range(heads):
            figures = (float(getattr(scores, name)[layer, head]) for name in TABLE_COLUMNS)
            cells = " | ".join(f"{figure:.2f}" for figure in figures)
            rows.append(f"| L{layer}H{head} | {cells} |")
    return "\n".join(rows)


def perplexity_by_position(
    model: PreTrainedModel, tokenizer: Tokenizer, *, rows: int = 4
) -> list[tuple[str, float]]:
    """Held-out perplexity over ranges of positions of sequences of 2048 tokens."""
    text_BT = held_out_text(tokenizer, rows=rows, length=2048, seed=CARD_SEED + 1)
    losses = []
    with torch.no_grad():
        for row_1T in text_BT.split(1):
            logits = model(input_ids=row_1T, use_cache=False).logits
            losses.append(functional.cross_entropy(logits[0, :-1], row_1T[0, 1:], reduction="none"))
    loss_T = torch.stack(losses).mean(0)
    edges = ((1, 64), (64, 256), (256, 1024), (1024, 2048))
    return [
        (f"{low}-{high}", float(loss_T[low - 1 : high - 1].mean().exp())) for low, high in edges
    ]


def card(model: PreTrainedModel, tokenizer: Tokenizer, last: dict, remark: str = "") -> str:
    """The model card, measured on ``model``; ``last`` is the last line of its training log."""
    scores = head_scores(model, tokenizer, seed=CARD_SEED)
    long = head_scores(model, tokenizer, seed=CARD_SEED, **LONG)
    text_BT = held_out_text(tokenizer, rows=8, length=256, seed=CARD_SEED)
    unigram = unigram_loss(tokenizer, text_BT)
    config = model.config
    positions = "\n".join(
        f"| {span} | {perplexity:.2f} |"
        for span, perplexity in perplexity_by_position(model, tokenizer)
    )
    return CARD.format(
        parameters=model.num_parameters(),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        ffn=config.intermediate_size,
        context=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        tokens=last["tokens"],
        steps=last["step"],
        minutes=last["seconds"] / 60,
        remark=remark,
        perplexity=_exp(scores.text_loss),
        unigram=_exp(unigram),
        random_perplexity=_exp(scores.random_loss),
        positions=positions,
        local_keys=LOCAL_KEYS,
        table=score_table(scores),
        long_table=score_table(long),
        summary=_summary(scores),
    )


def _exp(loss: float) -> float:
    return float(torch.tensor(loss).exp())


def _summary(scores: HeadScores) -> str:
    heads = scores.induction.shape[1]
    lines = []
    for name in TABLE_COLUMNS[:-1]:
        best, place = getattr(scores, name).flatten().topk(3)
        found = ", ".join(
            f"L{int(index) // heads}H{int(index) % heads} ({float(value):.2f})"
            for value, index in zip(best, place, strict=True)
        )
        lines.append(f"* {name.replace('_', ' ')}: {found}")
    return "\n".join(lines)


CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The demo model of Attnscope

A small language model whose attention heads show what people come to see: heads that look at the
token before, heads that find what followed the last time (induction), heads that rest on the first
token (sinks), heads that stay near. It was trained for Attnscope by Attnscope's own script on the
text of Attnscope's own generator. Nothing was planted in its weights, and no attention was
supervised: the only loss is the prediction of the next token.

## Architecture

Qwen3 as transformers ships it: {parameters:,} parameters in float32, {layers} layers, hidden size
{hidden}, {heads} query heads and {kv_heads} key/value heads of {head_dim} dimensions, biases and
RMS norms on queries and keys, gated feed-forward of {ffn}, tied embeddings, rotary positions,
context {context}. The tokenizer is a byte-level BPE of {vocabulary} entries with single digits; it
puts `<|begin|>` before every text.

## Data and curriculum

Stories, dialogue, letters, songs, recipes, inventories, small programs and sums, written by rules
(`models/demo_text/`). Names of people and places, identifiers and glossary words are invented for
each document from syllables, so they cost several tokens and can only be predicted by copying;
questions, refrains and whole sentences come back. All sums are right.

Beside the text stand repeated random tokens: 80 % of all batches until a tenth of the budget is
spent, then falling to 18 % at 35 % of it, where they stay. Meanwhile the segments grow from 4-16
tokens out of 256 common ones to 16-127 out of all. Text comes in sequences of 256 tokens, later
also of 1024 and 2048. The first copy of a random segment is not a training target.

Optimizer: Muon on the matrices of the layers, AdamW on the rest; constant learning rate, then
linear decay to zero over the last quarter.

Tokens seen: {tokens:,} in {steps:,} steps and {minutes:.0f} minutes, on a CPU with two cores that
it shared with other work. `training_log.jsonl` has the losses and the best heads on the way.
{remark}

## Measured on held-out text and held-out random tokens

| held-out | perplexity |
| --- | ---: |
| text, 256 tokens | {perplexity:.2f} |
| the same text by token frequencies alone | {unigram:.1f} |
| random tokens said twice, the second time | {random_perplexity:.2f} |

Perplexity on held-out text by position, in packed sequences of 2048 tokens:

| positions | perplexity |
| --- | ---: |
{positions}

The strongest heads:

{summary}

## Every head

* **induction**: mean weight from a position in the second copy of 32 random tokens to the token
  after the first occurrence of its own token.
* **previous token**: mean weight on the key just before the query, on held-out text.
* **sink**: mean weight on the first token, on held-out text, over queries {local_keys} and later.
* **local**: mean weight on the last {local_keys} keys, the query's own included, over the same
  queries.
* **distance**: mean distance from query to key, in tokens, over the same queries.

{table}

## The same, longer

200 random tokens said twice, and text of 1024 tokens:

{long_table}

## How to make it again

    python -m attnscope.models.demo_training --out assets/demo_model --minutes {minutes:.0f}

A budget in minutes depends on the machine's speed. With `--tokens {tokens}` the curriculum follows
tokens instead, and a run no longer depends on the machine's speed.

## Limits

It knows nothing about the world: its villages, sayings and people are invented, its English is
that of a few hundred sentence patterns. It copies well and computes badly: the sums of its training
text are right, those it writes often are not, nor are the results of its programs. It is made for
looking at attention, and for nothing else.

## Licence

Apache-2.0, weights and texts alike.
"""
