"""The small classifier that scores generated images in place of a large pretrained one.

Its penultimate features replace Inception's; distances over them are comparable only within one data set.
Trained by `learner/pretraining/losses.py`.
"""

from torch import Tensor, nn
from torch.nn import functional as F

FEATURE_DIM = 64


class ImageClassifier(nn.Module):
    """Four 3x3 convolutions and two linear layers; made for 32 px, at least 8 px.

    It uses group normalisation, so an image's score does not depend on its batch or on running statistics.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _conv_block(3, 16),
            nn.MaxPool2d(2),
            _conv_block(16, 32),
            nn.MaxPool2d(2),
            _conv_block(32, 64),
            nn.MaxPool2d(2),
            _conv_block(64, 64),
            nn.AdaptiveAvgPool2d(2),  # any image size gives 2 x 2 cells
            nn.Flatten(),
        )
        self.to_features = nn.Linear(4 * 64, FEATURE_DIM)
        self.to_logits = nn.Linear(FEATURE_DIM, num_classes)

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Penultimate features [B, D] (before their ReLU: no dead axes) and logits [B, K].

        `pixels_BCHW` in [-1, 1].
        """
        features_BD = self.to_features(self.trunk(pixels_BCHW))
        return features_BD, self.to_logits(F.relu(features_BD))


def _conv_block(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1, bias=False), nn.GroupNorm(4, channels), nn.ReLU()
    )
