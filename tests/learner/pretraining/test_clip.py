"""The loss of a CLIP: open_clip's, and that of pictures which share a caption."""

import math

import pytest
import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn

from learner.pretraining.losses import clip_loss


class Given(nn.Module):
    """A CLIP whose pictures and texts are their own embeddings."""

    def __init__(self, scale: float):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def embed_pictures(self, vectors: Tensor) -> Tensor:
        return vectors

    def embed_texts(self, tokens: Tensor) -> Tensor:
        return nn.functional.normalize(tokens.float(), dim=-1)


def test_of_texts_that_all_differ_it_is_open_clip_s() -> None:
    torch.manual_seed(0)
    pictures_BE = nn.functional.normalize(torch.randn(6, 4), dim=-1)
    texts_BL = torch.randint(1, 100, (6, 4))
    clip = Given(scale=14.0)
    loss, _ = clip_loss(clip, pictures_BE, texts_BL)
    torch.testing.assert_close(loss, ClipLoss()(pictures_BE, clip.embed_texts(texts_BL), torch.tensor(14.0)))


def test_pictures_that_share_a_text_share_it_equally() -> None:
    vectors_BE = torch.eye(3)[[0, 0, 1]]
    loss, shown = clip_loss(Given(scale=1000.0), vectors_BE, vectors_BE.long())
    assert loss.item() == pytest.approx(2 / 3 * math.log(2))
    assert shown == {"accuracy": 1.0}


def test_accuracy_counts_pictures_whose_nearest_text_is_their_own() -> None:
    _, shown = clip_loss(Given(scale=1.0), torch.eye(3)[[0, 0, 2]], torch.eye(3).long())
    assert shown == {"accuracy": pytest.approx(2 / 3)}
