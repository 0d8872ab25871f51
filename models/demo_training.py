"""Train the demo model: ``python -m attnscope.models.demo_training --out FOLDER --minutes N``.

A small Qwen3 (grouped-query attention, RMS norms on queries and keys, tied embeddings) learns our
own generated text and repeated random tokens on a CPU. Every structure that its heads show comes
from data: weights start random and the only loss is the prediction of the next token. Batches are
a function of the seed and the step, so a run that is stopped resumes where it was.
"""

import argparse
import json
import logging
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

from attnscope.models import demo_card, demo_data
from attnscope.models.demo_optimizer import Muon
from attnscope.models.demo_scores import head_scores

logger = logging.getLogger(__name__)
WARMUP_STEPS = 40
DECAY_SHARE = 0.25
NAMED_SCORES = ("induction", "previous_token", "sink", "local")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One training run; everything that its result depends on, apart from the machine's speed.

    ``minutes`` or ``tokens`` is the budget, and the other is None: the curriculum and the learning
    rate follow the share of the budget that is spent. Only a budget in tokens is reproducible.
    """

    minutes: float | None = None
    tokens: int | None = None
    seed: int = 0
    vocabulary: int = 1024
    layers: int = 4
    hidden: int = 256
    ffn: int = 384
    query_heads: int = 8
    kv_heads: int = 2
    head_dim: int = 64
    micro_batch_tokens: int = 2048
    micro_batches: int = 4
    matrix_lr: float = 0.02
    embedding_lr: float = 1e-2
    vector_lr: float = 4e-3
    tokenizer_documents: int = 5000
    score_every_tokens: int = 1_000_000

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.tokens is None):
            raise ValueError("give the budget either in minutes or in tokens, and not both")


def tokenizer_for(plan: Plan, work: Path) -> Tokenizer:
    """The run's tokenizer: learned at the first start (seconds), and read from then on."""
    path = work / "tokenizer.json"
    if not path.exists():
        demo_data.train_tokenizer(
            vocabulary=plan.vocabulary, documents=plan.tokenizer_documents, seed=plan.seed
        ).save(str(path))
    return Tokenizer.from_file(str(path))


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run has come; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)

    def share(self, plan: Plan) -> float:
        """The share of the budget that is spent, in [0, 1]."""
        if plan.minutes is not None:
            return min(self.seconds / (60 * plan.minutes), 1.0)
        assert plan.tokens is not None
        return min(self.tokens / plan.tokens, 1.0)


def new_model(plan: Plan) -> Qwen3ForCausalLM:
    """A Qwen3 of the plan's shape with random weights.

    Embeddings start large, so that the steps Muon makes do not drown them, and the last norm small,
    so that logits stay moderate although they use the same embeddings. Matrices start with a
    standard deviation of 1/sqrt(inputs), and those that write to the residual stream at zero, so
    that at first every layer is the identity. Biases of queries and keys start as large as what
    they are added to: a part of every query and key that does not depend on its token is what
    attention to relative positions is made of.
    """
    torch.manual_seed(plan.seed)
    config = Qwen3Config(
        vocab_size=plan.vocabulary,
        hidden_size=plan.hidden,
        intermediate_size=plan.ffn,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.query_heads,
        num_key_value_heads=plan.kv_heads,
        head_dim=plan.head_dim,
        attention_bias=True,
        max_position_embeddings=demo_data.MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=demo_data.BEGIN_ID,
        eos_token_id=demo_data.END_ID,
        pad_token_id=demo_data.END_ID,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(std=0.5)
        model.model.norm.weight.fill_(0.06)
        for name, parameter in model.model.layers.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
            elif parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
            elif name.endswith(("q_proj.bias", "k_proj.bias")):
                parameter.normal_()
            elif name.endswith(("q_norm.weight", "k_norm.weight")):
                parameter.fill_(1.4)  # sharper attention from the first step on
    return model


def optimizers_for(model: Qwen3ForCausalLM, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    embedding = model.model.embed_tokens.weight
    taken.add(id(embedding))
    others = [p for p in model.parameters() if id(p) not in taken]
    adam = partial(torch.optim.AdamW, betas=(0.9, 0.98), weight_decay=0.0)
    return [
        Muon(matrices, lr=plan.matrix_lr, weight_decay=0.1 * plan.matrix_lr),
        adam([embedding], lr=plan.embedding_lr),
        adam(others, lr=plan.vector_lr),
    ]


def learning_rate_factor(step: int, share: float) -> float:
    """Warm up, stay, and fall linearly to zero over the last part of the budget."""
    return min((step + 1) / WARMUP_STEPS, 1.0, max((1.0 - share) / DECAY_SHARE, 0.0))


def batch_loss(model: Qwen3ForCausalLM, batch: demo_data.Batch) -> Tensor:
    """Mean cross-entropy, in nats, over the batch's targets."""
    logits = model(input_ids=batch.tokens, use_cache=False).logits
    return functional.cross_entropy(
        logits.flatten(0, 1), batch.targets.flatten(), ignore_index=demo_data.IGNORED
    )


class Run:
    """A training run in a working folder: model, optimizers, progress, log and checkpoint.

    Several processes may share a run (``torch.distributed`` initialised): each takes its part of a
    step's micro-batches, gradients are averaged, and all make the same update. One process a core
    bears a busy machine far better than one process with a thread a core.
    """

    def __init__(self, plan: Plan, work: Path):
        self.plan = plan
        self.work = work
        self.progress = Progress()
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.workers = dist.get_world_size() if dist.is_initialized() else 1
        work.mkdir(parents=True, exist_ok=True)
        self.tokenizer = tokenizer_for(plan, work)
        self.model = new_model(plan)
        self.optimizers = optimizers_for(self.model, plan)
        self._base_rates = [float(one.param_groups[0]["lr"]) for one in self.optimizers]
        if self.checkpoint.exists():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        """Where the run saves everything it needs to go on."""
        return self.work / "checkpoint.pt"

    @property
    def log(self) -> Path:
        """JSON lines: one object for every measurement of losses and heads."""
        return self.work / "training_log.jsonl"

    def _resume(self) -> None:
        saved = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.progress = Progress(**saved["progress"])
        logger.info("resumed at step %d, %d tokens", self.progress.step, self.progress.tokens)

    def save(self) -> None:
        """Write the checkpoint; a reader never sees half of one."""
        partial = self.checkpoint.with_suffix(".partial")
        saved = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
        }
        torch.save(saved, partial)
        partial.replace(self.checkpoint)

    def step(self) -> None:
        """One optimizer step over the plan's micro-batches."""
        start, plan, progress = time.monotonic(), self.plan, self.progress
        share = self._agreed_share()
        self.model.train()
        for index in range(self.rank, plan.micro_batches, self.workers):
            batch = demo_data.micro_batch(
                self.tokenizer,
                progress=share,
                tokens=plan.micro_batch_tokens,
                seed=(plan.seed * 1_000_003 + progress.step) * 64 + index + 1,
            )
            loss = batch_loss(self.model, batch)
            (loss / plan.micro_batches).backward()
            before = progress.losses.get(batch.kind, loss.item())
            progress.losses[batch.kind] = 0.8 * before + 0.2 * loss.item()
        self._sum_gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = learning_rate_factor(progress.step, share)
        for optimizer, rate in zip(self.optimizers, self._base_rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.tokens += plan.micro_batches * plan.micro_batch_tokens
        progress.seconds += time.monotonic() - start

    def _agreed_share(self) -> float:
        share = torch.tensor(self.progress.share(self.plan), dtype=torch.float64)
        if self.workers > 1:
            dist.broadcast(share, src=0)
        return float(share)

    def _sum_gradients(self) -> None:
        if self.workers == 1:
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        pieces = flat.split([gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))

    def eager_model(self) -> Qwen3ForCausalLM:
        """A copy of the model that runs eager attention, which returns its weights."""
        config = Qwen3Config(**self.model.config.to_dict())
        config._attn_implementation = "eager"
        eager = Qwen3ForCausalLM(config)
        eager.load_state_dict(self.model.state_dict())
        return eager.eval()

    def export(self, out: Path, remark: str = "") -> None:
        """Write the model as it stands to ``out``, with its card and what it should remark."""
        model = self.eager_model()
        demo_card.export(model, self.tokenizer, log=self.log, out=out, remark=remark)

    def measure(self) -> None:
        """Score the heads, append a line to the log, and save a checkpoint."""
        start, progress = time.monotonic(), self.progress
        now = demo_data.mixture(progress.share(self.plan), self.plan.vocabulary)
        scores = head_scores(self.eager_model(), self.tokenizer, ids=now.random_ids)
        line = {
            "step": progress.step,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds),
            "share": round(progress.share(self.plan), 4),
            "train_loss": {kind: round(loss, 4) for kind, loss in progress.losses.items()},
            "text_loss": round(scores.text_loss, 4),
            "random_loss": round(scores.random_loss, 4),
        }
        for name in NAMED_SCORES:
            best, place = getattr(scores, name).flatten().topk(3)
            line[name] = {
                f"L{int(i) // self.plan.query_heads}H{int(i) % self.plan.query_heads}": round(
                    float(value), 3
                )
                for value, i in zip(best, place, strict=True)
            }
        with self.log.open("a") as log:
            log.write(json.dumps(line) + "\n")
        logger.info("%s", json.dumps(line))
        progress.seconds += time.monotonic() - start
        self.save()

    def train(self) -> None:
        """Step until the budget is spent, measuring at regular counts of tokens."""
        while self._agreed_share() < 1.0:
            before = self.progress.tokens // self.plan.score_every_tokens
            self.step()
            if self.rank == 0 and self.progress.step % 20 == 0:
                logger.info("%s", self.progress)
            if self.rank == 0 and self.progress.tokens // self.plan.score_every_tokens > before:
                self.measure()
        if self.rank == 0:
            self.measure()


def work_in(rank: int, workers: int, plan: Plan, work: Path) -> None:
    """Train as one of ``workers`` processes, with one thread; all must be given the same plan."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    if workers == 1:
        Run(plan, work).train()
        return
    # The rendezvous file must be new: the parent has removed what an earlier run left.
    rendezvous = f"file://{(work / 'rendezvous').resolve()}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=workers)
    try:
        Run(plan, work).train()
    finally:
        dist.destroy_process_group()


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the finished model goes")
    parser.add_argument("--work", type=Path, default=Path("data/demo_training"))
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float)
    budget.add_argument("--tokens", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--remark", default="", help="a sentence on this run, for the card")
    options = parser.parse_args(arguments)
    plan = Plan(minutes=options.minutes, tokens=options.tokens, seed=options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    (options.work / "rendezvous").unlink(missing_ok=True)
    tokenizer_for(plan, options.work)  # before the workers start, so that all read the same one
    spawn(work_in, args=(options.workers, plan, options.work), nprocs=options.workers)
    Run(plan, options.work).export(options.out, options.remark)


if __name__ == "__main__":
    main()
