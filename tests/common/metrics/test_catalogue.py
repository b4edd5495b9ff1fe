"""The catalogue's naming rules, and that code, alert rules and dashboards name what is in it."""

import re
from collections.abc import Iterator
from pathlib import Path

from common.metrics.catalogue import CATALOGUE, EVENTS, SCORES
from common.paths import CHECKOUT
from deploy.runs.summary_text import SCORES as SCORES_IN_WORDS
from deploy.runs.wording import WORDINGS

SUBJECTS = {"actors", "buffer", "judges", "learner", "weights", "checkpoint", "evaluation", "driver"}
UNITS = ("_seconds", "_bytes", "_versions", "_ratio")
SCALED_UNITS = ("milli", "micro", "_ms", "_kb", "_mb", "kilo", "mega", "percent", "minutes")
SUFFIXES = ("_bucket", "_sum", "_count", "_created")

KNOWN = {metric.name for metric in CATALOGUE}


def names_in(text: str) -> set[str]:
    """Metric names in a file; a histogram's series count as the histogram."""
    names = set(re.findall(r"\bvapi_[a-z_]+[a-z]\b", text))
    known = {metric.name for metric in CATALOGUE}
    return {
        next((name.removesuffix(s) for s in SUFFIXES if name.removesuffix(s) in known), name) for name in names
    }


def files(suffixes: set[str], *folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in (CHECKOUT / folder).rglob("*") if path.suffix in suffixes)


def test_names_are_unique() -> None:
    assert len(KNOWN) == len(CATALOGUE)


def test_a_name_says_whose_it_is_in_small_letters() -> None:
    for metric in CATALOGUE:
        match = re.fullmatch(r"vapi_([a-z]+)_[a-z]+(_[a-z]+)*", metric.name)
        assert match, metric.name
        assert match[1] in SUBJECTS, metric.name


def test_counters_and_only_counters_end_in_total() -> None:
    for metric in CATALOGUE:
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name


def test_histograms_have_a_unit_and_rising_buckets_and_others_have_no_buckets() -> None:
    for metric in CATALOGUE:
        if metric.kind == "histogram":
            assert metric.name.endswith(UNITS), metric.name
            assert metric.buckets, metric.name
            assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name
        else:
            assert metric.buckets == (), metric.name


def test_units_are_base_units_and_no_name_ends_like_a_series_of_a_histogram() -> None:
    for metric in CATALOGUE:
        assert not any(unit in metric.name for unit in SCALED_UNITS), metric.name
        assert not metric.name.endswith(SUFFIXES), metric.name
        assert metric.help.startswith("Seconds") == metric.name.endswith("_seconds"), metric.name
        assert metric.help.startswith("Bytes") == metric.name.endswith("_bytes"), metric.name


def test_help_is_a_sentence_and_a_label_has_few_known_values() -> None:
    for metric in CATALOGUE:
        assert re.fullmatch(r"[A-Z].*\.", metric.help), metric.name
        assert re.fullmatch(r"[a-z]*", metric.label), metric.name
        assert bool(metric.label) == bool(metric.values), metric.name
        assert all(re.fullmatch(r"[a-z_0-9]+", value) for value in metric.values), metric.name


def test_scores_and_events_are_those_that_can_be_told_of() -> None:
    assert tuple(SCORES_IN_WORDS) == SCORES
    assert tuple(WORDINGS) == EVENTS


def test_code_measures_all_that_is_listed_and_nothing_else() -> None:
    code = [*files({".py"}, "actors", "common", "learner"), *files({".py"}, "deploy/runs", "deploy/service")]
    code.remove(CHECKOUT / "common/metrics/catalogue.py")
    measured = set().union(*(names_in(path.read_text()) for path in code))
    assert measured == {metric.name for metric in CATALOGUE}


def test_alert_rules_dashboards_and_pages_name_metrics_that_exist() -> None:
    pages = [*files({".py", ".yaml", ".yml", ".json", ".md"}, "deploy", "docs"), *CHECKOUT.glob("*.md")]
    unknown = {str(path.relative_to(CHECKOUT)): names_in(path.read_text()) - KNOWN for path in pages}
    assert {path: names for path, names in unknown.items() if names} == {}
