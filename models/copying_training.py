"""Train the two copying models: ``python -m attnscope.models.copying_training --out assets/copying``.

A small BART copies a word, and a small vision transformer with a GPT-2 decoder names a row of squares.
Both start from random weights and learn only to predict the next token; that their cross-attention
then lies on a diagonal is what the tasks make of them. One thread and one seed: the same weights on
every machine of the same kind.
"""

import argparse
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessorPil,
)

from attnscope.models.copying_tasks import (
    BEGIN_ID,
    COLOURS,
    END_ID,
    FIRST_ID,
    LETTERS,
    LONGEST_WORD,
    PAD_ID,
    SIDE,
    SQUARES,
    Batch,
    Task,
    image_batch,
    text_batch,
)

logger = logging.getLogger(__name__)
SPREAD = 0.1
"""Standard deviation of the first weights: with transformers' 0.02 so narrow a BART learns nothing."""
_SPECIAL: dict[str, Any] = {
    "pad_token_id": PAD_ID,
    "bos_token_id": BEGIN_ID,
    "eos_token_id": END_ID,
    "decoder_start_token_id": BEGIN_ID,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One training run: all that its weights depend on."""

    steps: int
    rows: int = 64
    learning_rate: float = 5e-3
    seed: int = 0


def text_model() -> PreTrainedModel:
    """A BART with one layer a side and one head, random."""
    sizes = {"layers": 1, "attention_heads": 1, "ffn_dim": 64}
    sides: dict[str, Any] = {
        f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()
    }
    config = BartConfig(
        vocab_size=FIRST_ID + len(LETTERS),
        d_model=48,
        max_position_embeddings=LONGEST_WORD + 1,
        dropout=0.0,
        init_std=SPREAD,
        forced_eos_token_id=None,
        **sides,
        **_SPECIAL,
    )
    return BartForConditionalGeneration(config)


def image_model() -> PreTrainedModel:
    """A vision transformer whose patches are the squares, and a GPT-2 of one layer and one head."""
    encoder = ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=(SIDE, SIDE * SQUARES),  # pyright: ignore[reportArgumentType]
        patch_size=SIDE,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=SPREAD,
    )
    decoder = GPT2Config(
        vocab_size=FIRST_ID + len(COLOURS),
        n_embd=32,
        n_layer=1,
        n_head=1,
        n_positions=SQUARES + 1,
        add_cross_attention=True,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=SPREAD,
        bos_token_id=BEGIN_ID,
        eos_token_id=END_ID,
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    for name, value in _SPECIAL.items():
        setattr(config, name, value)
    return VisionEncoderDecoderModel(config=config)


def letters_tokenizer() -> PreTrainedTokenizerFast:
    """A token a letter, capitals as small ones; what the model does not know is read as its padding."""
    names = ["<pad>", "<begin>", "⏎", *LETTERS]
    core = Tokenizer(WordLevel({one: at for at, one in enumerate(names)}, unk_token="<pad>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(
        single="$A ⏎", special_tokens=[("⏎", END_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<begin>",
        eos_token="⏎",
        model_max_length=LONGEST_WORD + 1,
    )


def colours_tokenizer() -> PreTrainedTokenizerFast:
    """A token a colour's name; any other word is read as padding."""
    names = ["<pad>", "<begin>", "⏎", *(f"▁{colour}" for colour in COLOURS)]
    core = Tokenizer(WordLevel({one: at for at, one in enumerate(names)}, unk_token="<pad>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<begin>", eos_token="⏎"
    )


def squares_processor() -> ViTImageProcessorPil:
    """Makes a row of squares of any picture: scaled to its size, −1 to 1."""
    half = [0.5, 0.5, 0.5]
    size = {"height": SIDE, "width": SIDE * SQUARES}
    return ViTImageProcessorPil(size=size, image_mean=half, image_std=half)


BESIDE: dict[Task, Callable[[], tuple[Any, ...]]] = {
    "text": lambda: (letters_tokenizer(),),
    "image": lambda: (colours_tokenizer(), squares_processor()),
}
"""What lies beside the weights, so that the model is loaded like any other."""


TASKS: dict[Task, tuple[Callable[[], PreTrainedModel], Callable[..., Batch], Plan]] = {
    "text": (text_model, text_batch, Plan(steps=700)),
    "image": (image_model, image_batch, Plan(steps=1200, learning_rate=8e-3)),
}


def train(task: Task, plan: Plan | None = None) -> tuple[PreTrainedModel, list[float]]:
    """Trains one of the models from the start.

    Args:
        task: A key of `TASKS`.
        plan: Its own when None.

    Returns:
        The model in eval mode, and the loss of every step.
    """
    make, batch_of, standard = TASKS[task]
    plan = plan or standard
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        model = make()
    losses = list(_steps(model, batch_of, plan))
    return model.eval(), losses


def _steps(model: PreTrainedModel, batch_of: Callable[..., Batch], plan: Plan) -> Iterator[float]:
    generator = torch.Generator().manual_seed(plan.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=plan.learning_rate, total_steps=plan.steps
    )
    model.train()
    for step in range(plan.steps):
        batch = batch_of(plan.rows, generator)
        loss = model(**batch.inputs, labels=batch.labels_BT).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 99:
            logger.info("step %d, loss %.5f", step + 1, loss.item())
        yield loss.item()


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="where the models go, a folder each"
    )
    parser.add_argument("--steps", type=int, default=None, help="in place of each task's own")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    for task, (_, _, standard) in TASKS.items():
        plan = standard if options.steps is None else Plan(steps=options.steps)
        model, _ = train(task, plan)
        model.save_pretrained(options.out / task)
        for beside in BESIDE[task]():
            beside.save_pretrained(options.out / task)


if __name__ == "__main__":
    main()
