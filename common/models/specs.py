"""The sections in which a recipe describes its models: unions with one member per family. No torch here."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from common.models.janus import spec as janus
from common.models.janus.spec import JanusPolicySpec
from common.models.llamagen import spec as llamagen
from common.models.llamagen.spec import LlamaGenPolicySpec, LlamaGenTokenizerSpec
from common.models.perceptual.spec import LpipsSpec, ShiftTolerantLpipsSpec


def _of_first_family(section: Any) -> Any:
    """Recipes need not name the family that was the only one."""
    return {"family": "llamagen", **section} if isinstance(section, dict) else section


PolicySpec = Annotated[
    LlamaGenPolicySpec | JanusPolicySpec, Field(discriminator="family"), BeforeValidator(_of_first_family)
]
TokenizerSpec = LlamaGenTokenizerSpec
PerceptualSpec = Annotated[LpipsSpec | ShiftTolerantLpipsSpec, Field(discriminator="family")]

# What `convert` knows a file by: name and section of the models that are published alone, and name and sections of
# those whose generator and tokenizer are published in one file.
PUBLISHED = (llamagen.published,)
PUBLISHED_WHOLE = (janus.published,)
