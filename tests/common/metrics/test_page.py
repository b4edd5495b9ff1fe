"""The page of metrics is the catalogue's."""

from common.metrics.catalogue import CATALOGUE
from common.metrics.page import PAGE, page


def test_the_page_in_the_documentation_is_current() -> None:
    assert PAGE.read_text() == page(), "run python -m common.metrics.page"


def test_every_metric_has_a_row_of_its_own() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) == len(CATALOGUE)
    assert any(
        row.startswith("| `vapi_learner_loss` | gauge | `term`: total, policy, ce, kl | Loss of") for row in rows
    )
