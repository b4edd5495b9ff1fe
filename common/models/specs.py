"""The sections in which a recipe describes its models: unions with one member per family. No torch here."""

from typing import Annotated

from pydantic import Field

from common.models.llamagen import spec as llamagen
from common.models.llamagen.spec import LlamaGenPolicySpec, LlamaGenTokenizerSpec
from common.models.perceptual.spec import LpipsSpec, ShiftTolerantLpipsSpec

PolicySpec = LlamaGenPolicySpec
TokenizerSpec = LlamaGenTokenizerSpec
PerceptualSpec = Annotated[LpipsSpec | ShiftTolerantLpipsSpec, Field(discriminator="family")]

# Name and section of every model whose weights are published: what `convert` knows a file by.
PUBLISHED = (llamagen.published,)
