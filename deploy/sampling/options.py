"""The options of `sample`, besides the recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import RecipeError

DEFAULT_NUM = 100
LAYOUTS = ("flat", "geneval")


@dataclass(frozen=True)
class SampleOptions:
    out: Path
    checkpoint: str | None = None  # None: the recipe's policy
    seed: int = 0
    num: int | None = None  # pictures of classes; None: DEFAULT_NUM
    prompts: Path | None = None
    per_prompt: int | None = None  # pictures; None: 1
    text_encoder: str | None = None  # of the prompts, as for `prepare`; None: the recipe's, where it names one
    layout: Literal["flat", "geneval"] = "flat"

    def __post_init__(self) -> None:
        if self.num is not None and self.num < 1:
            raise RecipeError(f"--num is {self.num}: ask for at least 1 picture")
        if self.per_prompt is not None and self.per_prompt < 1:
            raise RecipeError(f"--per-prompt is {self.per_prompt}: ask for at least 1 picture a prompt")
        if self.seed < 0:
            raise RecipeError(f"--seed is {self.seed}: seeds are 0 or above")
        if self.prompts and self.num is not None:
            raise RecipeError("--num counts pictures of classes: with --prompts say --per-prompt")
        if not self.prompts:
            self._require_no_prompt_options()

    def _require_no_prompt_options(self) -> None:
        needing = {
            "--per-prompt": self.per_prompt is not None,
            "--text-encoder": self.text_encoder is not None,
            "--layout geneval": self.layout == "geneval",
        }
        for option, is_given in needing.items():
            if is_given:
                raise RecipeError(f"{option} is given without --prompts: name a file of prompts too")

    def require_fit(self, conditioning: Literal["class", "text"]) -> None:
        """Raise RecipeError if the options do not fit the policy's conditioning."""
        if conditioning == "text" and not self.prompts:
            raise RecipeError(
                "policy.conditioning is text: name a file of prompts by --prompts, and their --text-encoder "
                "unless the recipe names their tokenizer"
            )
        if conditioning == "class" and self.prompts:
            raise RecipeError("policy.conditioning is class: --prompts needs a text-conditional policy")
