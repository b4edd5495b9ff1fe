"""The numbers of a study: each variant's scores over its seeds, with the base's scores and noise floor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from deploy.ablation.results import CellResult, Numbers, StudyFolder
from deploy.ablation.study import Study
from deploy.reporting.numbers import MISSING, finite, fixed, short
from deploy.runs.summary_text import SCORES

TITLES = SCORES | {
    "held_out_mse": ("held-out MSE", "lower"),
    "held_out_lpips": ("held-out LPIPS", "lower"),
    "held_out_perplexity": ("held-out perplexity", "lower"),
}
LAST_STEP = {
    "reward_mean": "own reward",
    "ce_prior": "cross-entropy",
    "entropy": "entropy",
    "clip_fraction": "clip fraction",
    "grad_norm": "gradient norm",
}


@dataclass(frozen=True)
class Statistic:
    """Finite values of one quantity, one per seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        return fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None for fewer than two values."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def spread(self) -> float | None:
        """Largest minus smallest."""
        return max(self.values) - min(self.values) if self.values else None

    @property
    def text(self) -> str:
        if self.mean is None:
            return MISSING
        if not any(self.values):
            return "0"
        decimals = decimals_of(self.mean)
        mean = fixed(self.mean, decimals)
        return mean if self.std is None else f"{mean} ± {fixed(self.std, decimals)}"


@dataclass(frozen=True)
class Score:
    """A score of a variant."""

    statistic: Statistic
    verdict: str = ""  # "gain" or "loss" if it differs from the base by more than noise


@dataclass(frozen=True)
class Row:
    name: str
    num_seeds: int
    scores: dict[str, Score]
    last_step: dict[str, Statistic]  # training metrics, and seconds
    steps: Sequence[Sequence[dict]] = ()  # of each seed


@dataclass(frozen=True)
class ScoreTable:
    columns: tuple[str, ...]  # keys of scores
    base: dict[str, Statistic]  # over sampling seeds; empty until the base is scored
    num_base_seeds: int
    rows: tuple[Row, ...]

    def noise_text(self, key: str) -> str:
        statistic = self.base.get(key, Statistic(()))
        return MISSING if statistic.std is None else short(statistic.spread, 2)


def build_score_table(study: Study, folder: StudyFolder) -> ScoreTable:
    """The table of the finished cells."""
    scored = [folder.result(cell) for cell in study.base]
    base = {index: result.scores for index, result in enumerate(scored) if result}
    found = [(cell, folder.result(cell)) for cell in study.cells]
    columns = study.section.scores
    rows = [
        _row(
            name,
            [(cell.index, result) for cell, result in found if result and cell.variant == name],
            columns,
            base,
        )
        for name in study.section.variants
    ]
    statistics = {key: _statistic(each.get(key) for each in base.values()) for key in columns} if base else {}
    return ScoreTable(columns, statistics, len(base), tuple(rows))


def title(key: str) -> tuple[str, str]:
    """A score's name, and whether higher or lower is better."""
    return TITLES.get(key, (key.replace("_", " "), ""))


def decimals_of(value: float) -> int:
    """Decimals that show a difference of one thousandth of the value."""
    size = abs(value)
    return next((places for places, least in ((1, 100), (2, 10), (3, 1), (4, 0.1)) if size >= least), 5)


def _row(
    name: str, results: Sequence[tuple[int, CellResult]], columns: Sequence[str], base: Mapping[int, Numbers]
) -> Row:
    scores = {}
    for key in columns:
        statistic = _statistic(result.scores.get(key) for _, result in results)
        scores[key] = Score(statistic, _verdict(key, results, base))
    last = [result.steps[-1] for _, result in results]
    last_step = {key: _statistic(line.get(key) for line in last) for key in LAST_STEP}
    last_step["seconds"] = _statistic(result.seconds for _, result in results)
    return Row(name, len(results), scores, last_step, [result.steps for _, result in results])


def _verdict(key: str, results: Sequence[tuple[int, CellResult]], base: Mapping[int, Numbers]) -> str:
    """Compares the mean difference from the base, at equal sampling seeds, with the noise and its own std."""
    good = title(key)[1]
    noise = _statistic(each.get(key) for each in base.values()).spread
    pairs = [(result.scores.get(key), base[index].get(key)) for index, result in results if index in base]
    differences = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    if not good or noise is None or not differences:
        return ""
    difference, own_spread = fmean(differences), _statistic(differences).std or 0.0
    if abs(difference) <= max(noise, own_spread):
        return ""
    return "gain" if (difference > 0) == (good == "higher") else "loss"


def _statistic(values) -> Statistic:
    return Statistic(tuple(finite(values)))
