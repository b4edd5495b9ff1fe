"""The log-probability of the group's class, by a small classifier: a judge that needs no image to compare with."""

from torch import Tensor

from actors.rewards.term import Sources
from common.models.image_classifier import ImageClassifier


class ClassLogProbability:
    """Pictures of a class-conditional generator; under a dropped condition there is no class, and no measure."""

    higher_is_better = True
    stage = "score"

    def __init__(self, classifier: ImageClassifier):
        self._classifier = classifier

    def measure(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        _, logits_NK = self._classifier(decoded_BGCHW.flatten(0, 1).clamp(-1, 1))
        logprobs_BGK = logits_NK.log_softmax(dim=-1).unflatten(0, decoded_BGCHW.shape[:2])
        label_BG1 = sources.condition["label"][:, None, None].expand(-1, decoded_BGCHW.shape[1], 1)
        return logprobs_BGK.gather(2, label_BG1)[:, :, 0]
