"""What `prepare` is asked to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import UserError

WHITE = "white"
KINDS = ("folder", "tars", "parquet", "saved")


@dataclass(frozen=True)
class PrepareOptions:
    input: Path
    output: Path
    image_size: int
    kind: str | None = None  # of KINDS; None looks at what is there
    image_column: str | None = None
    label_column: str | None = None
    caption_column: str | None = None
    caption_field: str | None = None
    split: str | None = None
    min_side: int = 0
    ground: str = WHITE
    shard_size: int = 1000
    text_encoder: str | None = None
    text_batch_size: int = 32
    caption_length: int = 120
    prompts: str | None = None  # the tokenizer.json that prompts are made with
    prompt_length: int = 128
    workers: int = 0  # 0: in this process, without Ray
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        least = {
            "image_size": 1,
            "min_side": 0,
            "shard_size": 1,
            "text_batch_size": 1,
            "caption_length": 1,
            "prompt_length": 1,
            "workers": 0,
            "gpus_per_worker": 0,
        }
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option} is {getattr(self, name)}: it must be at least {minimum}")
        try:
            from PIL import ImageColor  # not needed to say what the command takes

            ImageColor.getrgb(self.ground)
        except ValueError:
            raise UserError(f"--ground is {self.ground}: name a colour, such as white, or #rrggbb") from None
        if self.label_column and self._wants_caption:
            raise UserError(
                "--label-column asks for class ids, and --caption-column, --caption-field, --text-encoder or "
                "--prompts for captions: a folder of shards has one of the two"
            )

    @property
    def wants(self) -> Literal["label", "caption"] | None:
        """What to condition on, where an option says so."""
        if self._wants_caption:
            return "caption"
        return "label" if self.label_column else None

    @property
    def _wants_caption(self) -> bool:
        return any((self.caption_column, self.caption_field, self.text_encoder, self.prompts))
