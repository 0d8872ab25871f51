"""The demo model shows what its card says, and its script trains a smaller one."""

import json
import math
import re
from itertools import islice
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from attnscope.models import demo_card, demo_data, demo_scores, demo_training
from attnscope.models.demo_optimizer import Muon, orthogonalized
from attnscope.models.demo_text.documents import document_stream

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "assets" / "demo_model"
SEED = 4242  # neither the card's nor the training run's


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(
        FOLDER, attn_implementation="eager", local_files_only=True
    ).eval()


@pytest.fixture(scope="module")
def scores(model, tokenizer) -> demo_scores.HeadScores:
    return demo_scores.head_scores(model, tokenizer, seed=SEED)


def test_the_weights_are_small_safetensors_and_nothing_else() -> None:
    weights = [path for path in FOLDER.iterdir() if path.stat().st_size > 1_000_000]
    assert [path.name for path in weights] == ["model.safetensors"]
    assert weights[0].stat().st_size <= 12 * 2**20


def test_the_architecture_is_one_that_transformers_ships() -> None:
    config = AutoConfig.from_pretrained(FOLDER, local_files_only=True)
    assert config.model_type == "qwen3"
    assert (config.num_hidden_layers, config.num_attention_heads) == (4, 8)
    assert (config.num_key_value_heads, config.max_position_embeddings) == (2, 2048)


def test_the_tokenizer_begins_every_text_and_gives_it_back() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    odd = ["", " two  spaces\n\n\ttab", "naïve Ω 漢字 🙂", "1234 + 5 = 1239", "\x00\u202e<b>"]
    for text in [*islice(document_stream(SEED, held_out=True), 30), *odd]:
        ids = tokenizer(text).input_ids
        assert ids[0] == demo_data.BEGIN_ID == tokenizer.bos_token_id
        assert demo_data.BEGIN_ID not in ids[1:]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.eos_token_id == demo_data.END_ID
    assert tokenizer.model_max_length == 2048


def test_at_least_two_induction_heads(scores) -> None:
    assert (scores.induction >= 0.5).sum() >= 2


def test_a_previous_token_head(scores) -> None:
    assert scores.previous_token.max() >= 0.7


def test_a_sink_head(scores) -> None:
    assert scores.sink.max() >= 0.5


def test_a_local_head_that_is_more_than_a_previous_token_head(scores) -> None:
    local = (scores.local >= 0.8) & (scores.previous_token < 0.5)
    assert local.any()


def test_text_is_predicted_far_better_than_by_frequencies(scores, tokenizer) -> None:
    text_BT = demo_scores.held_out_text(tokenizer, rows=8, length=256, seed=SEED)
    unigram = demo_scores.unigram_loss(tokenizer, text_BT)
    assert math.exp(scores.text_loss) < math.exp(unigram) / 8
    assert math.exp(scores.text_loss) < 2.2  # 1.91 on the card's documents


def test_repeated_random_tokens_are_predicted(scores) -> None:
    assert math.exp(scores.random_loss) < 1.3


def test_positions_up_to_the_end_of_the_context_are_trained(tokenizer) -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True).eval()
    by_position = dict(demo_card.perplexity_by_position(model, tokenizer, rows=2))
    assert by_position["1024-2048"] < 1.2 * by_position["64-256"]


def test_the_card_says_what_is_measured(model, tokenizer) -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    again = demo_scores.head_scores(model, tokenizer, seed=demo_card.CARD_SEED)
    stated = re.findall(r"^\| (L\dH\d) \| (.+) \|$", card, flags=re.MULTILINE)
    heads = again.induction.shape[1]
    assert len(stated) == 2 * again.induction.numel()
    for place, (name, cells) in enumerate(stated[: again.induction.numel()]):
        assert name == f"L{place // heads}H{place % heads}"
        for column, cell in zip(demo_card.TABLE_COLUMNS, cells.split(" | "), strict=True):
            measured = getattr(again, column)[place // heads, place % heads]
            assert float(cell) == pytest.approx(float(measured), abs=0.011)


def test_greedy_text_is_made_of_words_of_the_training_text(model) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    lexicon = {
        word for text in islice(document_stream(1), 4000) for word in re.findall(r"[a-z]+", text)
    }
    prompt = tokenizer("In the village of Mirdale there lived a baker named", return_tensors="pt")
    ids = model.generate(**prompt, max_new_tokens=150, do_sample=False)
    text = tokenizer.decode(ids[0], skip_special_tokens=True)
    # Names begin with a capital; all that does not must be a word that the generator writes.
    words = re.findall(r"(?<![A-Za-z])[a-z]+", text)
    assert len(words) > 40
    assert sum(word in lexicon for word in words) / len(words) > 0.97


def test_the_log_tells_of_the_whole_run() -> None:
    lines = (FOLDER / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    log = [json.loads(line) for line in lines]
    assert log[-1]["share"] == 1.0
    assert [line["tokens"] for line in log] == sorted(line["tokens"] for line in log)
    assert log[-1]["text_loss"] < log[0]["text_loss"] - 1


def test_example_prompts_fit_and_are_described(tokenizer) -> None:
    examples = json.loads((ROOT / "assets" / "prompts" / "examples.json").read_text("utf-8"))
    prompts = [one for one in examples if one.get("model", "demo") == "demo"]
    assert 8 <= len(prompts) <= 10
    for example in prompts:
        assert set(example) == {"title", "text", "about"}
        assert 40 <= len(tokenizer.encode(example["text"]).ids) <= 500
    assert 250 <= len(tokenizer.encode(examples[0]["text"]).ids) <= 400


TINY = {
    "vocabulary": 600,
    "layers": 2,
    "hidden": 32,
    "ffn": 32,
    "query_heads": 2,
    "kv_heads": 1,
    "head_dim": 16,
    "micro_batch_tokens": 256,
    "micro_batches": 2,
    "tokenizer_documents": 50,
    "score_every_tokens": 4096,
}


def test_training_lowers_the_loss_and_resumes(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    half = demo_training.Run(demo_training.Plan(tokens=8192, **TINY), tmp_path)
    half.train()
    resumed = demo_training.Run(demo_training.Plan(tokens=16384, **TINY), tmp_path)
    assert resumed.progress.tokens == 8192
    for ours, theirs in zip(half.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    resumed.train()
    log = [json.loads(line) for line in resumed.log.read_text(encoding="utf-8").splitlines()]
    assert log[-1]["tokens"] == 16384
    assert log[-1]["random_loss"] < log[0]["random_loss"]
    resumed.export(tmp_path / "out")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True)
    assert exported.num_parameters() == resumed.model.num_parameters()


def test_two_runs_of_one_seed_are_equal(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    runs = [demo_training.Run(demo_training.Plan(tokens=2048, **TINY), tmp_path / n) for n in "ab"]
    for run in runs:
        run.train()
    for one, other in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("budget", [{}, {"minutes": 1.0, "tokens": 5}])
def test_a_plan_has_exactly_one_budget(budget: dict) -> None:
    with pytest.raises(ValueError, match="either in minutes or in tokens"):
        demo_training.Plan(**budget)


@pytest.mark.parametrize(
    ("step", "share", "factor"),
    [(0, 0.0, 1 / 40), (39, 0.01, 1.0), (999, 0.5, 1.0), (999, 0.875, 0.5), (999, 1.0, 0.0)],
)
def test_learning_rate(step: int, share: float, factor: float) -> None:
    assert demo_training.learning_rate_factor(step, share) == pytest.approx(factor)


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.2, 0.5, 0.8, 1.0])
def test_the_curriculum_never_forgets_either_kind(progress: float) -> None:
    now = demo_data.mixture(progress, 1024)
    assert 0.15 <= now.random_share <= 0.9
    assert sum(now.text_lengths.values()) == pytest.approx(1.0)
    assert max(now.text_lengths) <= demo_data.MAX_POSITIONS


def test_the_first_copy_is_no_target() -> None:
    now = demo_data.mixture(0.0, 1024)
    batch = demo_data.random_batch(now, tokens=1024, seed=3)
    rows, length = batch.tokens.shape
    for row in range(rows):
        sequence, targets = batch.tokens[row].tolist(), batch.targets[row].tolist()
        period = next(p for p in range(1, length) if sequence[1 + p :] == sequence[1 : length - p])
        assert targets[:period] == [demo_data.IGNORED] * period
        assert targets[period:-1] == sequence[period + 1 :]


def test_orthogonalized_matrices_have_singular_values_near_one() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 16, 40, generator=generator)
    singular = torch.linalg.svdvals(orthogonalized(matrices))
    assert singular.min() > 0.6
    assert singular.max() < 1.3


def test_muon_descends_and_refuses_vectors() -> None:
    torch.manual_seed(0)
    target, weight = torch.randn(8, 4), torch.nn.Parameter(torch.zeros(8, 4))
    optimizer = Muon([weight], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (weight - target).square().mean()
        loss.backward()
        optimizer.step()
    assert (weight - target).square().mean() < 0.3 * target.square().mean()
    with pytest.raises(ValueError, match="matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
