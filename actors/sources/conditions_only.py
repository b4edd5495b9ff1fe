"""Classes or prompts without pictures, for free-running rollouts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actors.sources.split import Split
from common.config.data import ClassSource, PromptSource
from common.errors import DataError
from common.paths import resolve
from common.protocols import CaptionFormat, ClassFormat, ConditionRow, SourceImage
from common.text import shown_name

NO_PICTURE = np.zeros((0, 0, 3), dtype=np.uint8)


class ConditionsOnly:
    """Addressed as a source of pictures is; its pictures have no pixels."""

    def __init__(self, kind: str, conditions: Sequence[ConditionRow], texts: Sequence[str], has_classes: bool):
        self._kind = kind
        self._conditions = conditions
        self._texts = texts
        self.class_names = tuple(texts) if has_classes else ()

    def __len__(self) -> int:
        return len(self._conditions)

    def read(self, index: int) -> SourceImage:
        text = self._texts[index] if self._texts else ""
        image_id = f"{self._kind}/{index:04d} {text}".strip()
        return SourceImage(image_id, NO_PICTURE, self._conditions[index], text)


def classes_alone(spec: ClassSource, conditions: ClassFormat, num_classes: int, split: Split) -> ConditionsOnly:
    """Each class once. Raises DataError."""
    _require_training(spec.kind, split)
    names = tuple(_lines(spec.names, "source.names")) if spec.names else ()
    if names and len(names) != num_classes:
        raise DataError(
            f"source.names {spec.names} has {len(names)} lines and policy.num_classes is {num_classes}: a class "
            "name per line is needed"
        )
    rows = [conditions.of_class(label) for label in range(num_classes)]
    return ConditionsOnly(spec.kind, rows, names, has_classes=True)


def prompts_alone(spec: PromptSource, captions: CaptionFormat, split: Split) -> ConditionsOnly:
    """Each prompt once. Raises DataError."""
    _require_training(spec.kind, split)
    prompts = [line for line in _lines(spec.path, "source.path") if line]
    if not prompts:
        raise DataError(f"source.path {spec.path} holds no prompt: write one per line")
    captions.require_encoder(spec.text_encoder)
    encoded = captions.encode(prompts, spec.text_encoder)
    rows = [captions.of_caption(each) for each in encoded]
    return ConditionsOnly(spec.kind, rows, prompts, has_classes=False)


def _require_training(kind: str, split: Split) -> None:
    if split != "train":
        raise DataError(f"source.kind {kind} has no held-out pictures: name a source of pictures to score with")


def _lines(path: str, setting: str) -> list[str]:
    try:
        text = Path(resolve(path)).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise DataError(f"{setting} {shown_name(path)} cannot be read ({reason}): name a text file") from None
    return [line.strip() for line in text.splitlines()]
