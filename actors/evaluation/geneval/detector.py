"""Objects in a picture, by a Mask2Former of transformers that was trained on COCO's 80 classes.

What becomes of the network's output follows mmdet 2, which GenEval was published with: the surest 100 pairs of
query and class, a mask where its logit is positive, scored by class probability times the mask's own mean.

Letters: Q queries, K classes, H, W of the picture, h, w of the network's masks.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from actors.evaluation.geneval.names import OBJECT_NAMES
from actors.evaluation.geneval.rules import Detection
from common.errors import CheckpointError
from common.hub import SCHEME
from common.paths import resolve

SETTING = "reward_models.detector"
OBTAIN = "hf download facebook/mask2former-swin-small-coco-instance --local-dir"
MOST_PAIRS = 100
SHORT_SIDE, LONG_SIDE, MULTIPLE = 800, 1333, 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Detector:
    def __init__(self, network: Any, name: str, device: torch.device):
        """`network` is a Mask2FormerForUniversalSegmentation with COCO's classes."""
        self.name = name
        self._network, self._device = network.to(device).eval(), device

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> list[Detection]:
        pixels_1CHW, part = prepared(image)
        output = self._network(pixel_values=pixels_1CHW.to(self._device))
        scores_QK = output.class_queries_logits[0].float().softmax(dim=-1)[:, :-1]
        masks_Qhw = output.masks_queries_logits[0].float()
        padded = pixels_1CHW.shape[2], pixels_1CHW.shape[3]
        return detections(scores_QK, masks_Qhw, padded, part, image.size)


def load_detector(address: str, device: torch.device) -> Detector:
    """From a folder of transformers, or hf://OWNER/REPO. Raises CheckpointError."""
    try:
        from transformers import Mask2FormerForUniversalSegmentation
        from transformers import logging as transformers_logging
    except ImportError:
        raise CheckpointError(
            f"{SETTING} needs the transformers package, which is not installed: pip install '.[text]'"
        ) from None
    folder = resolve(address)
    is_of_hub = address.startswith(SCHEME)
    if not is_of_hub and not folder.is_dir():
        raise CheckpointError(
            f"There is no detector at {folder}: run this: {OBTAIN} {address}; or point {SETTING} at a folder of a "
            "Mask2Former of transformers, or at hf://facebook/mask2former-swin-small-coco-instance"
        )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    build: Any = Mask2FormerForUniversalSegmentation.from_pretrained  # typed as if it gave the network alone
    source = address.removeprefix(SCHEME) if is_of_hub else str(folder)
    try:
        network, loading = build(source, output_loading_info=True)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"{SETTING} {address} cannot be loaded ({reason}): name another") from None
    if lacking := sorted(loading["missing_keys"]):
        raise CheckpointError(f"{SETTING} {address} lacks weights ({', '.join(lacking[:3])}): name another")
    if network.config.num_labels != len(OBJECT_NAMES):
        raise CheckpointError(
            f"{SETTING} {address} knows {network.config.num_labels} classes: GenEval needs one of COCO's "
            f"{len(OBJECT_NAMES)}"
        )
    return Detector(network, Path(source).name, device)


def prepared(image: Image.Image) -> tuple[Tensor, tuple[int, int]]:
    """float32 [1, 3, H, W], scaled, normalised and padded with zeros; height and width of the picture in it."""
    width, height = image.size
    scale = min(SHORT_SIDE / min(width, height), LONG_SIDE / max(width, height))
    part = int(height * scale + 0.5), int(width * scale + 0.5)
    resized = image.resize(part[::-1], Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].float() / 255
    pixels = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return F.pad(pixels, (0, -part[1] % MULTIPLE, 0, -part[0] % MULTIPLE)), part


def detections(
    scores_QK: Tensor, masks_Qhw: Tensor, padded: tuple[int, int], part: tuple[int, int], size: tuple[int, int]
) -> list[Detection]:
    """Of a picture of `size` (width, height) that fills the first `part` of `padded` (both height, width)."""
    K = scores_QK.shape[1]
    best_P, places_P = scores_QK.flatten().topk(min(MOST_PAIRS, scores_QK.numel()))
    found = []
    for score, place in zip(best_P.tolist(), places_P.tolist(), strict=True):
        query, kind = divmod(place, K)
        logits_HW = _of_picture(masks_Qhw[query], padded, part, size)
        mask_HW = logits_HW > 0
        if not mask_HW.any():
            continue
        sure = float(logits_HW[mask_HW].sigmoid().mean())
        rows, columns = (mask_HW.any(dim=dim).nonzero() for dim in (1, 0))
        box = float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
        found.append(Detection(OBJECT_NAMES[kind], score * sure, box, mask_HW.cpu().numpy()))
    return found


def _of_picture(mask_hw: Tensor, padded: tuple[int, int], part: tuple[int, int], size: tuple[int, int]) -> Tensor:
    whole = F.interpolate(mask_hw[None, None], padded, mode="bilinear", align_corners=False)
    seen = whole[..., : part[0], : part[1]]
    return F.interpolate(seen, size[::-1], mode="bilinear", align_corners=False)[0, 0]
