"""The numbers of a study: each variant's scores over its seeds, with the base's scores and noise floor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from deploy.ablation.results import CellResult, Numbers, StudyFolder
from deploy.ablation.study import Study
from deploy.reporting.numbers import MISSING, finite, fixed, short
from deploy.reporting.term_names import KNOWN, PREFERENCES, direction
from deploy.runs.records import better_of
from deploy.runs.summary_text import SCORES

HELD_OUT = "held_out_"
TITLES = SCORES | {
    **{
        f"{HELD_OUT}{name}": (f"held-out {term}", direction(name, {}))
        for name, term in (KNOWN | PREFERENCES).items()
    },
    "held_out_perplexity": ("held-out perplexity", "lower"),
    "reconstruction_psnr": ("reconstruction PSNR, dB", "higher"),
    "reconstruction_lpips": ("reconstruction LPIPS", "lower"),
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
    better: Mapping[str, str] = field(default_factory=dict)  # of terms of somebody's own: "higher" or "lower"

    @property
    def titles(self) -> list[tuple[str, str]]:
        """Of the columns: what each is called, and whether higher or lower is better."""
        return [title(key, self.better) for key in self.columns]

    def noise_text(self, key: str) -> str:
        statistic = self.base.get(key, Statistic(()))
        return MISSING if statistic.std is None else short(statistic.spread, 2)


def build_score_table(study: Study, folder: StudyFolder) -> ScoreTable:
    """The table of the finished cells."""
    scored = [folder.result(cell) for cell in study.base]
    base = {index: result.scores for index, result in enumerate(scored) if result}
    found = [(cell, folder.result(cell)) for cell in study.cells]
    columns = study.section.scores
    better = better_of(result.steps[-1] for _, result in found if result and result.steps)
    rows = [
        _row(
            name,
            [(cell.index, result) for cell, result in found if result and cell.variant == name],
            columns,
            base,
            better,
        )
        for name in study.section.variants
    ]
    statistics = {key: _statistic(each.get(key) for each in base.values()) for key in columns} if base else {}
    return ScoreTable(columns, statistics, len(base), tuple(rows), better)


def title(key: str, better: Mapping[str, str]) -> tuple[str, str]:
    """What a score is called, and whether higher or lower is better; empty where that is not known."""
    if key in TITLES:
        return TITLES[key]
    if key.startswith(HELD_OUT):
        name = key.removeprefix(HELD_OUT)  # a term of somebody's own
        return f"held-out {name}", better.get(name, "")
    return key.replace("_", " "), ""


def decimals_of(value: float) -> int:
    """Decimals that show a difference of one thousandth of the value."""
    size = abs(value)
    return next((places for places, least in ((1, 100), (2, 10), (3, 1), (4, 0.1)) if size >= least), 5)


def _row(
    name: str,
    results: Sequence[tuple[int, CellResult]],
    columns: Sequence[str],
    base: Mapping[int, Numbers],
    better: Mapping[str, str],
) -> Row:
    scores = {}
    for key in columns:
        statistic = _statistic(result.scores.get(key) for _, result in results)
        scores[key] = Score(statistic, _verdict(key, title(key, better)[1], results, base))
    last = [result.steps[-1] for _, result in results if result.steps]  # the base has none
    last_step = {key: _statistic(line.get(key) for line in last) for key in LAST_STEP}
    last_step["seconds"] = _statistic(result.seconds for _, result in results)
    return Row(name, len(results), scores, last_step, [result.steps for _, result in results])


def _verdict(key: str, good: str, results: Sequence[tuple[int, CellResult]], base: Mapping[int, Numbers]) -> str:
    """Compares the mean difference from the base, at equal sampling seeds, with the noise and its own std."""
    noise = _statistic(each.get(key) for each in base.values())
    pairs = [(result.scores.get(key), base[index].get(key)) for index, result in results if index in base]
    differences = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    own = _statistic(differences)
    if not good or noise.spread is None or noise.std is None or own.mean is None or own.std is None:
        return ""
    difference = own.mean
    if abs(difference) <= max(noise.spread, own.std):
        return ""
    return "gain" if (difference > 0) == (good == "higher") else "loss"


def _statistic(values) -> Statistic:
    return Statistic(tuple(finite(values)))
