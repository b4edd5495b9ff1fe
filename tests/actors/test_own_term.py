"""A term of the user's own by its address: what it may be, and what is said of one that cannot be had."""

from pathlib import Path

import pytest
import torch

from actors.rewards.own_term import own_term
from actors.rewards.table import build_terms
from actors.rewards.term import Sources
from common.config.algorithm import RewardSection
from common.errors import RecipeError

HERE = "tests.own_terms"

# Two samples of one black image, whose first two rows of two are white in the second sample.
SOURCES = Sources(-torch.ones(1, 3, 4, 4), {"label": torch.tensor([7])}, ("a.png",))
DECODED = -torch.ones(1, 2, 3, 4, 4)
DECODED[0, 1, :, :2, :2] = 1.0  # a quarter


def test_a_function_is_a_term_of_which_less_is_better() -> None:
    term = own_term(f"{HERE}:term")
    assert (term.higher_is_better, term.stage, hasattr(term, "measure_map")) == (False, "score", False)
    assert term.measure(DECODED, SOURCES).tolist() == [[0.0, 0.5]]


def test_an_object_says_whether_more_of_it_is_better() -> None:
    term = own_term(f"{HERE}:brightness")
    assert term.higher_is_better
    assert term.measure(DECODED, SOURCES).tolist() == [[-2.0, -1.0]]


def test_a_class_is_made_and_its_map_has_the_term_for_its_mean() -> None:
    term = own_term(f"{HERE}:Likeness")
    assert term.higher_is_better
    assert term.measure(DECODED, SOURCES).tolist() == [[1.0, 0.5]]
    value_BG, map_BGT = term.measure_map(DECODED, SOURCES, 2)  # type: ignore[attr-defined]
    assert value_BG.tolist() == [[1.0, 0.5]]
    assert map_BGT.tolist() == [[[1.0, 1.0, 1.0, 1.0], [-1.0, 1.0, 1.0, 1.0]]]


def test_terms_of_ones_own_stand_beside_the_known_ones_by_the_names_of_their_attributes() -> None:
    section = RewardSection(lpips=0, python={f"{HERE}:term": 0.5, f"{HERE}:Likeness": 2, f"{HERE}:brightness": 0})
    assert section.weights == {"mse": 1.0, "term": 0.5, "Likeness": 2.0}
    terms = build_terms(section, perceptual=None)
    assert list(terms) == ["mse", "term", "Likeness"]
    assert [term.higher_is_better for term in terms.values()] == [False, False, True]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (
            "tests.gone:term",
            "but the module tests.gone cannot be imported (ModuleNotFoundError: No module named 'tests.gone'): it "
            "must lie in the checkout or on PYTHONPATH",
        ),
        (f"{HERE}:gone", f"but the module {HERE} has no gone"),
        (
            f"{HERE}:number",
            "which is int: it must be a function measure(decoded, sources), or have a method of that name",
        ),
        (
            f"{HERE}:OnlyAMap",
            "which is OnlyAMap: it must be a function measure(decoded, sources), or have a method of that name",
        ),
    ],
)
def test_a_term_that_cannot_be_had_is_refused_in_a_line(address: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        own_term(address)
    assert str(caught.value) == f"reward.python names {address}, {words}"


def test_a_class_that_needs_arguments_is_refused_with_what_to_name_instead() -> None:
    with pytest.raises(
        RecipeError, match=r"a class that cannot be made without arguments \(TypeError: .*scale"
    ) as caught:
        own_term(f"{HERE}:Brightness")
    assert str(caught.value).endswith("): name an object of it")


def test_a_module_that_fails_while_it_is_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_rewards.py").write_text("raise RuntimeError('no weights\\nin a folder')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError) as caught:
        own_term("broken_rewards:sharpness")
    assert "cannot be imported (RuntimeError: no weights): it must lie" in str(caught.value)
    assert "\n" not in str(caught.value)
