"""How a generator is scored."""

from typing import Literal

from pydantic import Field

from common.config.base import Section
from common.config.reward_models import Preference


class EvaluationSection(Section):
    """Scores of a generator: before, during and after training, and by `evaluate`."""

    enabled: bool = False
    """Score the base model before training, and the result after it."""
    every: int = Field(default=0, ge=0)
    """Also score after every this many steps, on the actors between their tickets; 0 turns this off."""
    num_samples: int = Field(default=2000, ge=20)
    """Number of free-running pictures to score, the same number per class."""
    num_held_out: int = Field(default=256, gt=0)
    """Held-out images for the teacher-forced scores."""
    features: Literal["classifier", "inception", "efficientnet"] = "classifier"
    """The features that score free-running pictures. classifier: a small network trained on the same classes; its
    scores are comparable only with each other, and its distance is `fd`. inception: the network of published FIDs;
    its distance is `fid`. efficientnet: EfficientNet-Lite0, whose weights come with a package (extra
    `demo`); its distance is `fd_efficientnet`."""
    classifier: str = ""
    """Weights of the image classifier made by `pretrain`; for `features: classifier`."""
    inception_weights: str = ""
    """Weights of Inception-v3 in the layout of torch-fidelity and pytorch-fid, such as
    pt_inception-2015-12-05-6726825d.pth; for `features: inception`. Never downloaded."""
    scores: tuple[Preference, ...] = ()
    """Also score free-running pictures by these, on reward_models: by their captions, or the names of their
    classes. `evaluate` has them as --scores."""
    num_reference: int = Field(default=10_000, ge=20)
    """Most images of the training split that free-running pictures are compared with."""
    reference: str = ""
    """An .npz file to compare with instead, such as ADM's VIRTUAL_imagenet256_labeled.npz: uint8 pictures `arr_0`,
    the features' mean `mu` and covariance `sigma`, or both."""
    compare_temperature: float | None = Field(default=None, ge=0)
    """Also score the base model at this sampling temperature, for comparison."""
    compare_guidance: float | None = Field(default=None, ge=0)
    """Also score the base model at this scale of classifier-free guidance, for comparison."""
    compare_prior: bool = False
    """Also train with the cross-entropy prior alone for the same number of steps, for comparison."""
    compare_prior_time: bool = False
    """Also score the prior alone after as much time as the training took; needs `compare_prior`."""
    seed: int = Field(default=1000, ge=0)
    """Seed of the evaluation's own draws; noise is measured over `seed` and `seed + 1`."""

    def problem(self, conditioning: str) -> str | None:
        """Why these keys cannot score a policy of this conditioning; None if they can."""
        if self.compare_prior_time and not self.compare_prior:
            return "evaluation.compare_prior_time needs evaluation.compare_prior: set both, or neither"
        if self.features == "inception":
            if self.inception_weights:
                return None
            return (
                "evaluation.features is inception, but evaluation.inception_weights names no weights file: set "
                "it, or evaluation.features=efficientnet, whose weights come with the extra `demo`"
            )
        if self.features == "efficientnet":
            return None
        if conditioning == "text":
            return (
                "evaluation.features is classifier, but policy.conditioning is text and captions have no classes: "
                "set evaluation.features=inception and evaluation.inception_weights"
            )
        if self.classifier:
            return None
        return (
            "evaluation.classifier names no weights file, and the scores need a classifier: set it, or "
            "evaluation.features=inception"
        )
