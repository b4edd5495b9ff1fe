"""From a network's output to detections, and the network on a tiny random Mask2Former.

Letters: Q queries, K classes, H, W of the picture, h, w of the network's masks.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from actors.evaluation.geneval.colours import alone
from actors.evaluation.geneval.detector import detections, load_detector, prepared
from actors.evaluation.geneval.names import OBJECT_NAMES
from actors.evaluation.geneval.rules import Detection
from common.errors import CheckpointError
from tests.clips import save_detector

CPU = torch.device("cpu")


def test_the_names_are_cocos_in_order() -> None:
    assert len(OBJECT_NAMES) == len(set(OBJECT_NAMES)) == 80
    assert (OBJECT_NAMES[0], OBJECT_NAMES[15], OBJECT_NAMES[-1]) == ("person", "cat", "toothbrush")


def test_a_mask_becomes_a_box_and_a_score_in_pixels_of_the_picture() -> None:
    scores_QK = torch.zeros(2, 80)
    scores_QK[0, 15], scores_QK[1, 16] = 0.8, 0.5
    masks_Qhw = torch.full((2, 16, 16), -8.0)
    masks_Qhw[0, 4:8, 2:6] = 2.0  # of 64 x 64 padded pixels: rows 16 to 32, columns 8 to 24
    every = detections(scores_QK, masks_Qhw, (64, 64), (64, 48), (24, 32))  # a picture of 24 x 32, half as large
    found = [each for each in every if each.score > 0]
    cat = found[0]
    assert (cat.name, len(found)) == ("cat", 1)  # the dog has no mask
    rows, columns = np.nonzero(cat.mask_HW)
    assert cat.mask_HW.shape == (32, 24)
    assert cat.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert_close(torch.tensor(cat.box), torch.tensor([4.0, 8.0, 12.0, 16.0]), atol=1, rtol=0)
    assert 0.8 * 0.5 < cat.score < 0.8 * torch.tensor(2.0).sigmoid() + 1e-6


def test_the_surest_hundred_pairs_of_query_and_class_are_taken() -> None:
    scores_QK = torch.rand(3, 80, generator=torch.Generator().manual_seed(0))
    found = detections(scores_QK, torch.full((3, 4, 4), 20.0), (8, 8), (8, 8), (8, 8))
    assert len(found) == 100
    expected = scores_QK.flatten().sort(descending=True).values[:100]
    assert_close(torch.tensor([each.score for each in found]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("size", "part", "padded"), [((256, 256), (800, 800), (800, 800)), ((400, 1000), (1333, 533), (1344, 544))]
)
def test_a_picture_is_scaled_and_padded_to_whole_strides(size: tuple, part: tuple, padded: tuple) -> None:
    pixels_1CHW, seen = prepared(Image.new("RGB", size, (124, 116, 104)))
    assert (seen, tuple(pixels_1CHW.shape)) == (part, (1, 3, *padded))
    assert pixels_1CHW.abs().max() < 0.02  # the mean colour is zero, as is what is padded


def test_an_object_is_shown_on_grey() -> None:
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:4] = True
    crop = alone(Image.new("RGB", (6, 4), "red"), Detection("cat", 1.0, (1, 1, 4, 3), mask))
    grey, red = [0x99] * 3, [255, 0, 0]
    assert np.array(crop).tolist() == [[grey, red, red]] * 2


def test_a_tiny_detector_runs_and_is_the_same_each_time(tmp_path: Path) -> None:
    detector = load_detector(str(save_detector(tmp_path / "tiny")), CPU)
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 48, 3), dtype=np.uint8))
    found = detector(image)
    assert 0 < len(found) <= 100
    assert all(each.mask_HW.shape == (40, 48) and each.name in OBJECT_NAMES for each in found)
    assert [(each.name, each.score) for each in found] == [(each.name, each.score) for each in detector(image)]
    assert detector.name == "tiny"


def test_a_detector_that_is_missing_or_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"run this: hf download facebook/mask2former-swin-small-coco-instance"
    ):
        load_detector("checkpoints/nothing", CPU)
    with pytest.raises(CheckpointError, match=r"knows 3 classes: GenEval needs one of COCO's 80"):
        load_detector(str(save_detector(tmp_path / "three", num_labels=3)), CPU)
