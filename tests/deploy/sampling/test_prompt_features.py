"""The features of prompts, as `sample` makes them for a text-conditional policy."""

from pathlib import Path

import numpy as np
import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import DataError
from common.models.families import caption_format
from common.models.llamagen import conditions as module
from common.models.t5.text_encoder import TextEncoder


def test_features_are_those_that_prepare_stores_cut_to_the_policys_length(
    tiny_t5: Path, text_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    texts = ["a red photo", "A <b>red</b> photo", "green grass", "blue " * 20, "of"]
    features = caption_format(text_recipe.policy).encode(texts, str(tiny_t5))
    assert [features_LD.shape for features_LD in features] == [(4, 16), (4, 16), (3, 16), (6, 16), (2, 16)]
    stored = TextEncoder(str(tiny_t5), 6).features(texts[:2])
    np.testing.assert_array_equal(features[0], stored[0])
    np.testing.assert_array_equal(features[1], stored[1])


def test_an_encoder_of_another_width_is_refused(tiny_t5: Path, text_recipe: Recipe) -> None:
    wider = with_changes(text_recipe, {"policy.caption_dim": 2048})
    with pytest.raises(DataError, match=r"features 16 wide and policy.caption_dim is 2048"):
        caption_format(wider.policy).require_encoder(str(tiny_t5))
