"""Settings of sampling that contradict each other."""

import pytest
from pydantic import ValidationError

from common.config.sampling import SamplingSection


def test_an_interval_without_tokens_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"guidance_stop is 5, not above sampling\.guidance_start \(5\)"):
        SamplingSection(guidance_schedule="interval", guidance_start=5, guidance_stop=5)
    assert SamplingSection(guidance_schedule="interval", guidance_start=5, guidance_stop=6).guidance_stop == 6


@pytest.mark.parametrize("keys", [{"guidance_start": 3}, {"guidance_stop": 3}])
def test_bounds_of_an_interval_are_refused_for_another_schedule(keys: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="guidance_schedule is power_cosine, and"):
        SamplingSection.model_validate({"guidance_schedule": "power_cosine", **keys})
