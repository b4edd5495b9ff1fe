"""What may be asked for together."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import RecipeError
from deploy.sampling.options import SampleOptions

PROMPTS: dict[str, Any] = {"prompts": Path("p.txt"), "text_encoder": "t5"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": 0}, "--num is 0: ask for at least 1"),
        ({"seed": -1}, "--seed is -1"),
        (PROMPTS | {"per_prompt": 0}, "--per-prompt is 0"),
        (PROMPTS | {"num": 3}, "--num counts pictures of classes: with --prompts say --per-prompt"),
        ({"per_prompt": 4}, "--per-prompt is given without --prompts"),
        ({"text_encoder": "t5"}, "--text-encoder is given without --prompts"),
        ({"layout": "geneval"}, "--layout geneval is given without --prompts"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        SampleOptions(Path("out"), **options)


def test_prompts_are_for_text_conditional_policies_and_for_them_alone() -> None:
    classes, prompts = SampleOptions(Path("out")), SampleOptions(Path("out"), **PROMPTS)
    classes.require_fit("class")
    prompts.require_fit("text")
    with pytest.raises(RecipeError, match=r"policy\.conditioning is text: name a file of prompts by --prompts"):
        classes.require_fit("text")
    with pytest.raises(RecipeError, match=r"policy\.conditioning is class: --prompts needs"):
        prompts.require_fit("class")
