"""Hidden tokens guessed by encoders, against transformers' eager attention with the same pairs hidden."""

from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from attnscope.kernels.errors import InvalidCall, ModelUnsupported, PromptRefused
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.hidden_tokens import hidden_logits, hidden_positions, passes_of
from attnscope.models.loading import LoadedModel
from attnscope.models.sparse_run import run_sparse
from tests.models.conftest import ENCODERS, tiny, tiny_tokenizer
from tests.models.masked import Rule, masked

MARK, MASK = "}", "~"
IDS = [92, 5, 6, 7, 8, 5, 6, 9, 11, 30, 2, 5, 6, 92]
WORDS = tuple(range(1, 13))
LOCAL = pattern("local", window=4)
RULES: dict[int, list[Rule]] = {at: [lambda i, j: abs(i - j) <= 2] for at in range(2)}


def encoder(family: str, *, mask_token: str | None = MASK) -> LoadedModel:
    tokenizer = tiny_tokenizer()
    tokenizer.cls_token, tokenizer.mask_token = MARK, mask_token
    return LoadedModel.of(tiny(ENCODERS[family](), hf.AutoModelForMaskedLM), tokenizer)


def guesses(model: LoadedModel, rules: dict[int, list[Rule]]) -> Tensor:
    """Of every word, from passes that each hide those of one remainder: float64 `[m, V]`."""
    rows = {}
    for first in range(7):
        hidden = [at for n, at in enumerate(WORDS) if n % 7 == first]
        ids = [93 if at in hidden else one for at, one in enumerate(IDS)]
        with torch.no_grad(), masked(model.model, rules, len(IDS)):
            logits = model.model(input_ids=torch.tensor([ids])).logits[0].double()
        rows |= {at: logits[at] for at in hidden}
    return torch.stack([rows[at] for at in WORDS])


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_each_token_is_guessed_once_while_it_is_hidden(family: str) -> None:
    model = encoder(family)
    assert hidden_positions(model, IDS) == WORDS
    with torch.no_grad():
        found = hidden_logits(model, IDS, WORDS)[0]
    torch.testing.assert_close(found.double(), guesses(model, {}), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_loss_and_guesses_are_those_of_the_masked_model(family: str) -> None:
    model = encoder(family)
    found = run_sparse(model, input_ids=IDS, patterns=LOCAL)
    before, after = guesses(model, {}), guesses(model, RULES)
    target = torch.tensor([IDS[at] for at in WORDS])
    close: dict[str, Any] = {"rel": 1e-4, "abs": 1e-5}
    for loss, by in ((found.loss.before, before), (found.loss.after, after)):
        assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(by, target)), **close)
    ratio = before.log_softmax(-1) - after.log_softmax(-1)
    kl = (before.softmax(-1) * ratio).sum(-1)
    place = int(kl.argmax())
    assert found.hidden is not None
    assert found.hidden.position == WORDS[place]
    assert found.hidden.text == model.tokens([IDS[WORDS[place]]])[0]
    assert found.kl_nats == pytest.approx(float(kl[place]), rel=1e-3, abs=1e-6)
    assert found.mean_kl_nats == pytest.approx(float(kl.mean()), rel=1e-3, abs=1e-6)
    for token in found.next_tokens:
        shares = (by[place].softmax(-1)[token.id] for by in (before, after))
        probability = token.probability
        assert (probability.before, probability.after) == pytest.approx(
            tuple(map(float, shares)), **close
        )
    assert (found.scored, found.text) == (len(WORDS), None)


def test_the_saving_is_that_of_one_pass() -> None:
    saving = run_sparse(encoder("bert"), input_ids=IDS, patterns=LOCAL).saving
    near = sum(abs(i - j) <= 2 for i in range(len(IDS)) for j in range(len(IDS)))
    assert saving.pairs.before == 2 * 4 * len(IDS) ** 2
    assert saving.pairs.after == 2 * 4 * near


def test_linformer_runs_in_an_encoder() -> None:
    found = run_sparse(encoder("bert"), input_ids=IDS, backend="linformer")
    assert found.mean_kl_nats > 1e-6


@pytest.mark.parametrize(("words", "passes"), [(1, 1), (7, 7), (12, 7)])
def test_few_tokens_take_few_passes(words: int, passes: int) -> None:
    assert passes_of(range(words)) == passes


def test_what_cannot_be_judged_says_why() -> None:
    with pytest.raises(ModelUnsupported, match="no mask token"):
        run_sparse(encoder("bert", mask_token=None), input_ids=IDS, patterns=LOCAL)
    with pytest.raises(ModelUnsupported, match="generates no text"):
        run_sparse(encoder("bert"), input_ids=IDS, patterns=LOCAL, new_tokens=3)
    with pytest.raises(PromptRefused, match="no token to guess"):
        run_sparse(encoder("bert"), input_ids=[92, 92], patterns=pattern("full"))
    with pytest.raises(InvalidCall, match="longer than the 14 tokens"):
        run_sparse(encoder("bert"), input_ids=IDS, patterns=pattern("local", window=15))
