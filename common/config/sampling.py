"""Free-running sampling: how the generator draws pictures from its own tokens."""

from typing import Literal, Self

from pydantic import Field, model_validator

from common.config.base import Section


class SamplingSection(Section):
    """Free-running sampling."""

    temperature: float = Field(default=1.0, ge=0)
    """Softmax temperature; 0 takes the most likely token."""
    top_k: int = Field(default=0, ge=0)
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Keep the fewest most likely tokens whose probabilities add up to this."""
    guidance_scale: float = Field(default=1.0, ge=0)
    """Scale of classifier-free guidance; 1 means no guidance."""
    guidance_schedule: Literal["constant", "power_cosine", "interval"] = "constant"
    """constant: the scale at every token. power_cosine: a rise from 1 at the first token to `guidance_scale` at
    the last. interval: the scale at tokens `guidance_start` … `guidance_stop` - 1, and 1 elsewhere."""
    guidance_power: float = Field(default=2.0, gt=0)
    """power_cosine: the larger, the later the scale rises."""
    guidance_start: int = Field(default=0, ge=0)
    """interval: the first guided token."""
    guidance_stop: int | None = Field(default=None, gt=0)
    """interval: the first token after the guided ones; null guides to the end. LlamaGen's cfg_interval n, which
    counts from the second token, is n + 2."""
    classes: Literal["balanced", "uniform", "training"] = "balanced"
    """Class of each picture. balanced: in turn, so in equal shares. uniform: drawn from (seed, sample index).
    training: those of training images spread evenly, which gives each class the share that it has in the data."""
    output_size: int | None = Field(default=None, gt=0)
    """Side of the pictures that `sample` writes, resized by bicubic interpolation without antialiasing, as in the
    published protocol; null keeps the decoded size. Evaluations use the decoded size."""
    batch_size: int = Field(default=100, gt=0)
    """Pictures decoded together. Affects the last bits of the results, like `actors.images_per_ticket`."""
    autocast: Literal["none", "bfloat16"] = "none"
    """Autocast of the generator's decoding; logits and the tokenizer are float32 in both cases."""

    compile: bool = False
    """torch.compile of the steps of decoding, over a key-value cache of its full size: one compilation for each
    batch size, then faster on a GPU, where launching kernels takes most of the time. Affects the last bits of the
    results."""

    @model_validator(mode="after")
    def _guidance_agrees(self) -> Self:
        if self.guidance_stop is not None and self.guidance_stop <= self.guidance_start:
            raise ValueError(
                f"sampling.guidance_stop is {self.guidance_stop}, not above sampling.guidance_start "
                f"({self.guidance_start}): no token would be guided"
            )
        of_interval = self.guidance_start or self.guidance_stop is not None
        if of_interval and self.guidance_schedule != "interval":
            raise ValueError(
                f"sampling.guidance_schedule is {self.guidance_schedule}, and sampling.guidance_start and "
                "guidance_stop belong to interval: set guidance_schedule=interval, or leave them out"
            )
        return self
