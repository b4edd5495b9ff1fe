"""GenEval's rules on made detections."""

from collections.abc import Sequence

import numpy as np
import pytest

from actors.evaluation.geneval.rules import TASKS, Detection, directions, judge, kept, score_of_tasks

MASK = np.ones((4, 4), bool)


def seen(name: str, score: float = 0.95, box: tuple[float, float, float, float] = (0, 0, 10, 10)) -> Detection:
    return Detection(name, score, box, MASK)


def clause(name: str, count: int = 1, **more) -> dict:
    return {"class": name, "count": count, **more}


def no_colours(name: str, objects: Sequence[Detection]) -> list[str]:
    raise AssertionError("no colour was asked for")


def right(
    found: list[Detection], include: list[dict], exclude: Sequence[dict] = (), task: str = "two_object"
) -> bool:
    wanted = {"tag": task, "include": include, "exclude": list(exclude)}
    return judge(kept(found, task), wanted, no_colours).is_right


def test_objects_must_all_be_there_and_be_sure_enough() -> None:
    two = [clause("cat"), clause("dog")]
    assert right([seen("cat", 0.31), seen("dog", 0.31)], two)
    assert not right([seen("cat", 0.31), seen("dog", 0.3)], two)  # more than the threshold
    assert not right([seen("cat")], two)
    wanted = {"include": [clause("cat", 2)]}
    assert judge({"cat": [seen("cat")]}, wanted, no_colours).reasons == ("1 cat of 2",)


def test_counting_asks_for_more_confidence_and_for_no_more_objects() -> None:
    include, exclude = [clause("cat", 2)], [clause("cat", 3)]
    assert right([seen("cat", 0.91)] * 2, include, exclude, "counting")
    assert right([seen("cat", 0.91)] * 2 + [seen("cat", 0.9)], include, exclude, "counting")
    assert not right([seen("cat", 0.91)] * 3, include, exclude, "counting")
    assert not right([seen("cat", 0.91)], include, exclude, "counting")
    assert not right([seen("cat", 0.5)] * 3, include, exclude, "colors")


def test_the_surest_sixteen_of_a_class_are_kept_in_order_and_overlaps_stay() -> None:
    found = kept([seen("cat", 0.5 + number / 100) for number in range(20)] + [seen("dog", 0.2)], "single_object")
    assert list(found) == ["cat"]
    assert [round(each.score, 2) for each in found["cat"]] == [round(0.69 - place / 100, 2) for place in range(16)]


def test_colours_are_those_of_the_surest_objects_asked_for() -> None:
    asked: list[tuple[str, int]] = []

    def colours(name: str, objects: Sequence[Detection]) -> list[str]:
        asked.append((name, len(objects)))
        return ["red" if each.score > 0.8 else "blue" for each in objects]

    found = {"cat": [seen("cat", 0.9), seen("cat", 0.7)], "dog": [seen("dog", 0.6)]}
    red = {"include": [clause("cat", color="red")]}
    assert judge(found, red, colours).is_right
    both = {"include": [clause("cat", 2, color="red"), clause("dog", color="red")]}
    assert judge(found, both, colours).reasons == ("cat is blue, red, not red", "dog is blue, not red")
    assert asked == [("cat", 1), ("cat", 2), ("dog", 1)]


@pytest.mark.parametrize(
    ("box", "ways"),
    [
        ((0, 100, 10, 110), {"left of"}),
        ((200, 100, 210, 110), {"right of"}),
        ((100, 0, 110, 10), {"above"}),
        ((100, 200, 110, 210), {"below"}),
        ((0, 0, 10, 10), {"left of", "above"}),  # 45 degrees: .71 of both
        ((0, 60, 10, 70), {"left of"}),
        ((102, 100, 112, 110), set()),  # nearer than a tenth of the sizes together
        ((100, 100, 110, 110), set()),
        ((104, 100, 114, 110), set()),  # (4 - 2) / 4 is not more than a half
        ((105, 100, 115, 110), {"right of"}),  # (5 - 2) / 5 is
    ],
)
def test_a_direction_counts_beyond_a_tenth_of_the_sizes(box: tuple, ways: set[str]) -> None:
    assert directions(box, (100, 100, 110, 110)) == ways


def test_a_position_is_to_the_objects_of_an_earlier_clause() -> None:
    include = [clause("dog"), clause("cat", position=["left of", 0])]
    cat, dog = seen("cat", box=(0, 0, 10, 10)), seen("dog", box=(50, 0, 60, 10))
    assert right([cat, dog], include, task="position")
    assert not right([seen("cat", box=(90, 0, 99, 10)), dog], include, task="position")
    lacking = judge({"cat": [cat]}, {"include": include}, no_colours)
    assert lacking.reasons == ("0 dog of 1", "nothing that cat could be left of")
    wrong = judge({"cat": [dog], "dog": [cat]}, {"include": include}, no_colours)
    assert wrong.reasons == ("cat is right of, not left of it",)


def test_only_the_surest_object_stands_for_its_class_in_a_position() -> None:
    include = [clause("dog"), clause("cat", position=["left of", 0])]
    far = [seen("cat", 0.9, (90, 0, 99, 10)), seen("cat", 0.8, (0, 0, 10, 10)), seen("dog", box=(50, 0, 60, 10))]
    assert not right(far, include, task="position")


def test_the_score_is_the_mean_of_the_tasks_whatever_their_numbers_of_pictures() -> None:
    shares, overall = score_of_tasks(
        {"counting": [True, False, False, False], "single_object": [True], "colors": []}
    )
    assert shares == {"single_object": 1.0, "counting": 0.25}
    assert overall == 0.625
    assert len(TASKS) == 6
