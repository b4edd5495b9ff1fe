"""`profile: published`: the logits of the released trainer, against transformers' Llama on the same rows."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from common.config.load import load_recipe
from common.models.loading import load_policy
from deploy.service.check import check
from tests.common.models.janus.golden import HF, condition, expected, policy

TWIN = "deploy/recipes/janus_pro_1b_t2i_tiny.yaml"


def released_logits(context_BT: Tensor) -> Tensor:
    """Prompts right-padded and masked, positions not corrected, all T tokens as inputs, hidden[:, P : P + T]."""
    transformers = pytest.importorskip("transformers")
    model = transformers.JanusForConditionalGeneration.from_pretrained(HF.parent, dtype=torch.float32).eval()
    lengths = expected()["prompt_lengths"].tolist()
    P, T = max(lengths), context_BT.shape[1]
    ids, mask = torch.full((len(lengths), P), 290), torch.zeros(len(lengths), P + T, dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = expected()["prompt_ids"][row, -length:]
        mask[row, :length] = mask[row, P:] = 1
    inner = model.model
    image = inner.generation_aligner(inner.generation_embeddings(context_BT))
    embedded = torch.cat([inner.language_model.embed_tokens(ids), image], dim=1)
    hidden = inner.language_model(
        inputs_embeds=embedded, attention_mask=mask, position_ids=torch.arange(P + T)[None], use_cache=False
    ).last_hidden_state
    return inner.generation_head(hidden[:, P : P + T])


@torch.no_grad()
def test_logits_are_those_of_the_released_trainer() -> None:
    model, context_BT = policy(), expected()["gt_tokens"]
    model.as_released = True
    logits = model(condition(), context_BT)
    assert_close(logits, released_logits(context_BT), rtol=1e-4, atol=1e-4)
    # One late: the logits of token t follow token t itself; nothing but rounding where no prompt is padded.
    model.as_released = False
    right = model(condition(), context_BT[:, :-1])
    assert_close(logits[0, :-1], right[0, 1:], rtol=1e-4, atol=1e-4)
    assert (logits[1, :-1] - right[1, 1:]).abs().max() > 0.1  # a shorter prompt


@torch.no_grad()
def test_decoding_is_never_as_released() -> None:
    model = policy()
    model.as_released = True
    first = model.start_decoding(condition()).next_logits(None)
    assert_close(first, expected()["logits_clean"][:, 0], rtol=1e-4, atol=1e-5)


def test_the_profile_sets_it_and_check_names_the_differences() -> None:
    published, corrected = load_recipe(TWIN, ["profile=published"]), load_recipe(TWIN)
    assert load_policy(published, torch.device("cpu")).as_released
    assert not load_policy(corrected, torch.device("cpu")).as_released
    said = {
        recipe.profile: next(finding.detail for finding in check(recipe) if finding.subject == "profile")
        for recipe in (published, corrected)
    }
    for words in ("one token late", "padded on the right", "context.noise=1", "perceptual.net=alex"):
        assert words in said["published"]
    assert "read before its token" in said["corrected"]
