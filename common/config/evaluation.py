"""What a generator is scored by."""

from typing import Literal

from pydantic import Field

from common.config.base import Section


class EvaluationSection(Section):
    """Scores of a generator: before, during and after training, and by `evaluate`."""

    enabled: bool = False
    """Score the base before, and the result after."""
    every: int = Field(default=0, ge=0)
    """Also score every so many steps, by the actors between their tickets; 0 does not."""
    num_samples: int = Field(default=2000, ge=20)
    """Free-running pictures to score, classes in equal shares."""
    num_held_out: int = Field(default=256, gt=0)
    """Held-out images for the teacher-forced scores."""
    features: Literal["classifier", "inception"] = "classifier"
    """What free-running pictures are looked at with. classifier: a small one, trained on the same classes; its
    scores compare with each other only, and its distance is `fd`. inception: that of published FIDs; `fid`."""
    classifier: str = ""
    """Weights of the image classifier, which `pretrain` makes; for `features: classifier`."""
    inception_weights: str = ""
    """Weights of Inception-v3 in the layout of torch-fidelity and pytorch-fid, such as
    pt_inception-2015-12-05-6726825d.pth; for `features: inception`. Never downloaded."""
    num_reference: int = Field(default=10_000, ge=20)
    """Images of the training split that free-running pictures are compared with, at the most."""
    reference: str = ""
    """An .npz file to compare with instead, such as ADM's VIRTUAL_imagenet256_labeled.npz: uint8 pictures `arr_0`,
    the features' mean `mu` and covariance `sigma`, or both."""
    compare_temperature: float | None = Field(default=None, ge=0)
    """Also score the base at this sampling temperature, as a yardstick."""
    compare_prior: bool = False
    """Also train with the cross-entropy prior alone for as many steps, as a yardstick."""
    seed: int = Field(default=1000, ge=0)
    """Seed of the evaluation's own draws; noise is measured over `seed` and `seed + 1`."""

    def problem(self, conditioning: str) -> str | None:
        """Why these keys give no scores for a policy of this conditioning; None where they do."""
        if self.features == "inception":
            if self.inception_weights:
                return None
            return (
                "evaluation.features is inception, but evaluation.inception_weights names no weights file: set it"
            )
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
