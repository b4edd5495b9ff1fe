"""The algorithm in one process: it computes what the parts of the service compute, and leaves a run folder."""

import json
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from actors.rewards.build import build_reward, rewards_of
from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.http_judge import HttpScores
from actors.rewards.table import build_terms
from actors.rewards.term import Sources
from actors.rollout_pipeline import RolloutPipeline
from actors.sources.build import build_source
from common.clock import StageClock
from common.config.load import load_recipe, with_changes
from common.config.recipe import Recipe
from common.config.reward import HttpJudge
from common.config.rollout import Kind
from common.models.loading import load_policy, load_tokenizer
from common.paths import CHECKOUT
from common.protocols import ImageTokenizer
from common.schema import by_rollout, from_table, to_table
from common.types import StepReport
from common.weights.snapshot import weights_sha256
from deploy.local_methods import post_train
from deploy.runs.local_run import run_local
from deploy.runs.tracking import following
from learner.train_step import Trainer
from tests.clips import reward_models

CPU = torch.device("cpu")


def reward_of(recipe: Recipe, tokenizer: ImageTokenizer) -> DecodedReward:
    return build_reward(recipe.reward, tokenizer, None, recipe.advantage.credit)


def rewards_of_kinds(recipe: Recipe, tokenizer: ImageTokenizer) -> dict[Kind, DecodedReward]:
    return rewards_of(recipe, tokenizer, build_terms(recipe.reward, None))


def local(recipe: Recipe) -> tuple[list[StepReport], str]:
    """The reports of `local` and the digest of its final weights."""
    policy, source = load_policy(recipe, CPU), build_source(recipe, "train")
    tokenizer = load_tokenizer(recipe, CPU)
    rewards = rewards_of_kinds(recipe, tokenizer)
    reports = list(post_train(policy, tokenizer, rewards, source, recipe, CPU))
    return reports, weights_sha256(policy.state_dict())


def in_parts(recipe: Recipe) -> tuple[list[StepReport], str]:
    """The same by the service's own parts, tickets through Arrow tables, without Ray."""
    actor_policy = load_policy(recipe, CPU)
    source = build_source(recipe, "train")
    tokenizer = load_tokenizer(recipe, CPU)
    pipelines = {
        kind: RolloutPipeline(recipe.of_kind(kind), source, tokenizer, reward, CPU)
        for kind, reward in rewards_of_kinds(recipe, tokenizer).items()
    }
    trainer = Trainer(load_policy(recipe, CPU), recipe, CPU)
    reports, ticket = [], 0
    for step in range(recipe.learner.num_steps):
        tables = []
        for _ in range(recipe.tickets_per_step):
            size = recipe.actors.images_per_ticket
            samples = range(ticket * size, (ticket + 1) * size)
            pipeline = pipelines[recipe.kind_of(samples[0])]
            groups = pipeline.roll_out(actor_policy, step, samples, StageClock()).groups
            assert groups is not None
            tables.append(to_table(groups))
            ticket += 1
        sums, norm = trainer.train(by_rollout(from_table(table) for table in tables), StageClock())
        reports.append(sums.report(trainer.step, norm, {}))
        actor_policy.load_state_dict(trainer.model.state_dict())
    return reports, weights_sha256(trainer.model.state_dict())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


FREE: dict[str, Any] = {
    "rollout": {"kind": "free_running"},
    "reward": {"mse": 0, "lpips": 0, "python": "tests.own_terms:brightness"},
    "learner.prior": "kl",
    "context.noise": 0,
    "group.size": 3,
}
BOTH: dict[str, Any] = {
    "rollout": {"teacher_forced": 0.5, "free_running": 0.5},
    "reward.python": {"tests.own_terms:brightness": 0.5},
}
METHODS: dict[str, dict[str, Any]] = {
    "the paper's": {},
    "token credit": {"advantage.credit": "token", "advantage.mix": 0.25, "reward.l1": 0.5},
    "credit by gradient": {"advantage.credit": "gradient", "group.size": 1, "reward.l1": 0.5},
    "credit by gradient, by the step": {
        "advantage.credit": "gradient",
        "advantage.scale": "global",
        "advantage.curvature": 0.1,
        "learner.prior": "kl",
        "group.top_k": 12,
    },
    "both credits": {"advantage.credit": "gradient", "reward.python": {"tests.own_terms:term": 0.5}},
    "a KL prior": {"learner.prior": "kl"},
    "ratios of samples": {"learner.ratio": "sequence", "advantage.normalize_std": False},
    "a noise schedule": {"context.noise_schedule": "linear", "context.noise_end": 0.1},
    "reAR's noise": {
        "context.noise": 1.0,
        "context.noise_schedule": "rear",
        "context.noise_per_sequence": True,
        "context.kernel": "other",
    },
    "reAR's regulariser": {"learner.embedding_weight": 1.0, "learner.prior": "kl"},
    "the policy's own noise": {"context.kernel": "self", "context.condition_drop": 0.3},
    "the most likely tokens": {"group.top_k": 12, "group.top_p": 0.9},
    "adapters": {"learner.lora": {"rank": 3}, "learner.prior": "kl"},
    "cooler samples": {"group.temperature": 0.7, "group.top_k": 12},
    "straight through": {"learner.method": "ste", "reward.l1": 0.5},
    "straight through, drawn": {
        "learner.method": "ste",
        "ste.sample": "gumbel",
        "ste.tau": 0.7,
        "context.condition_drop": 0.3,
    },
    "terms of one's own": {"reward.python": {"tests.own_terms:Likeness": 2, "tests.own_terms:term": 0.5}},
    "free-running samples": FREE,
    "guided ones of the most likely tokens": FREE
    | {"rollout": {"kind": "free_running", "guidance_scale": 3}, "group.top_k": 5, "group.temperature": 0.8},
    "both kinds of groups": BOTH,
    "both kinds, with the policy's own noise": BOTH
    | {"context.noise": 0.9, "context.noise_per_sequence": True, "context.kernel": "self"},
    "both, guided, by gradient": BOTH
    | {
        "rollout": {"teacher_forced": 0.5, "free_running": 0.5, "guidance_scale": 2},
        "advantage.credit": "gradient",
        "advantage.scale": "global",
        "learner.prior": "kl",
    },
}


@pytest.mark.parametrize("changes", METHODS.values(), ids=METHODS)
def test_the_parts_of_the_service_give_the_losses_and_the_weights_of_local(
    recipe: Recipe, changes: dict[str, Any]
) -> None:
    recipe = with_changes(recipe, {"learner.num_steps": 3, "learner.lr": 1e-2} | changes)
    (one, one_sha), (other, other_sha) = local(recipe), in_parts(recipe)
    assert [report.loss for report in one] == pytest.approx([report.loss for report in other], rel=0, abs=1e-6)
    assert [report.reward_mean for report in one] == pytest.approx([report.reward_mean for report in other])
    assert [report.grad_norm for report in one] == pytest.approx([report.grad_norm for report in other])
    assert [report.entropy for report in one] == pytest.approx([report.entropy for report in other])
    assert [report.kl for report in one] == pytest.approx([report.kl for report in other], abs=1e-6)
    assert [report.kl_prior for report in one] == pytest.approx([report.kl_prior for report in other], abs=1e-7)
    assert one[0].loss != one[2].loss
    assert one_sha == other_sha


def test_each_method_trains_other_weights_and_is_on_policy_in_its_first_step(recipe: Recipe) -> None:
    digests = set()
    for changes in METHODS.values():
        reports, sha = local(with_changes(recipe, {"learner.lr": 1e-2} | changes))
        digests.add(sha)
        assert reports[0].kl == pytest.approx(0, abs=1e-6)
        assert reports[0].clip_fraction == 0
    assert len(digests) == len(METHODS)


def test_the_kl_prior_starts_at_zero_and_holds_the_policy_where_it_was(recipe: Recipe) -> None:
    changes = {"learner.prior": "kl", "learner.num_steps": 6, "learner.lr": 1e-2}
    loose, held = (local(with_changes(recipe, changes | {"learner.ce_weight": weight}))[0] for weight in (0, 30))
    assert loose[0].kl_prior == held[0].kl_prior == pytest.approx(0, abs=1e-6)
    assert 0 < held[-1].kl_prior < loose[-1].kl_prior
    assert held[-1].loss == pytest.approx(held[-1].policy_loss + 30 * held[-1].kl_prior, abs=1e-5)
    assert local(recipe)[0][-1].kl_prior == 0


def test_a_run_is_a_function_of_its_seed(recipe: Recipe) -> None:
    (_, one), (_, same) = local(recipe), local(recipe)
    assert one == same
    assert local(with_changes(recipe, {"seed": 1}))[1] != one


def test_sample_credit_is_what_it_is_without_a_word_of_it(recipe: Recipe) -> None:
    """Its other keys have no say, and each token has the advantage of its sample."""
    recipe = with_changes(recipe, {"learner.lr": 1e-2})
    (reports, sha), (_, token_sha) = local(recipe), local(with_changes(recipe, {"advantage.credit": "token"}))
    keys = {"advantage.credit": "sample", "advantage.radius": 3, "advantage.mix": 0.5}
    assert local(with_changes(recipe, keys)) == (reports, sha)
    assert local(with_changes(recipe, {"advantage.credit": "token", "advantage.mix": 1}))[1] == sha
    assert token_sha != sha


def test_samples_that_a_judge_misses_are_counted_and_the_step_goes_on(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each group of 3 the first sample has no score; a group with one score is left out."""

    def measure(_: HttpScores, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        scores_BG = decoded_BGCHW.mean(dim=(2, 3, 4)).clone()
        scores_BG[:, :num_missed] = float("nan")
        return scores_BG

    num_missed = 1
    monkeypatch.setattr(HttpScores, "measure", measure)
    changes = FREE | {"reward": {"mse": 0, "lpips": 0, "http": {"url": "http://judge"}}, "learner.lr": 1e-2}
    recipe = with_changes(recipe, changes)
    policy, tokenizer = load_policy(recipe, CPU), load_tokenizer(recipe, CPU)
    rewards = rewards_of(recipe, tokenizer, {"http": HttpScores(HttpJudge(url="http://judge"))})
    source = build_source(recipe, "train")
    reports = list(post_train(policy, tokenizer, rewards, source, recipe, CPU))
    assert [(report.num_groups, report.num_dropped, report.num_flat) for report in reports] == [(4, 4, 0)] * 2
    assert all(report.reward_std > 0 and report.grad_norm > 0 for report in reports)

    pipeline = RolloutPipeline(recipe, source, tokenizer, rewards["free_running"], CPU)
    rolled_out = pipeline.roll_out(policy, 0, (0, 1), StageClock()).groups
    assert rolled_out is not None
    groups = from_table(to_table(rolled_out))
    assert groups.missed["http"].tolist() == [[1, 0, 0], [1, 0, 0]]
    sums, _ = Trainer(policy, recipe, CPU).train(groups, StageClock())
    assert (sums.num_groups, sums.num_dropped) == (2, 2)

    num_missed = 2
    lonely = pipeline.roll_out(policy, 0, (0, 1), StageClock())
    assert lonely.groups is None
    assert {skipped.reason for skipped in lonely.skipped} == {"reward.http scored 1 of 3 samples"}


class Shades:
    """A tokenizer of flat 4 x 4 patches: code v of 20 is the v-th shade from black to white."""

    num_tokens, codebook_size = 64, 20

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        return (F.avg_pool2d(pixels_BCHW.mean(dim=1), 4) * 9.5 + 9.5).round().long().flatten(1)

    def decode(self, tokens_BT: Tensor) -> Tensor:
        shades_B1hw = (tokens_BT.float() / 9.5 - 1).unflatten(1, (1, 8, 8))
        return F.interpolate(shades_B1hw, scale_factor=4).expand(-1, 3, -1, -1)


def test_the_reward_alone_teaches_a_generator_the_shades_of_its_pictures(recipe: Recipe, pictures: Path) -> None:
    for path in pictures.rglob("*.png"):
        Image.new("RGB", (32, 32), "white").save(path)
    changes = {"learner.num_steps": 12, "learner.lr": 0.02, "learner.ce_weight": 0, "context.noise": 0}
    recipe = with_changes(recipe, changes)
    source = build_source(recipe, "train")
    policy, reward = load_policy(recipe, CPU), reward_of(recipe, Shades())
    reports = list(post_train(policy, Shades(), reward, source, recipe, CPU))
    assert reports[0].reward_mean == pytest.approx(-1.4, abs=0.2)  # of uniform shades against white
    assert reports[-1].reward_mean > -0.9


@pytest.mark.parametrize(("address", "is_brighter"), [("brightness", True), ("term", False), ("darkness", True)])
def test_a_term_of_ones_own_teaches_what_it_finds_better(
    recipe: Recipe, pictures: Path, address: str, is_brighter: bool
) -> None:
    """Of black pictures: to be brighter where more brightness, or less darkness, is better; or to be like them."""
    for path in pictures.rglob("*.png"):
        Image.new("RGB", (32, 32), "black").save(path)
    changes = {"learner.num_steps": 8, "learner.lr": 0.02, "learner.ce_weight": 0, "context.noise": 0}
    own = {"reward.mse": 0, "reward.python": f"tests.own_terms:{address}"}
    recipe = with_changes(recipe, changes | own)
    source, policy = build_source(recipe, "train"), load_policy(recipe, CPU)
    reports = list(post_train(policy, Shades(), reward_of(recipe, Shades()), source, recipe, CPU))
    first, last = (report.reward_terms[address] for report in (reports[0], reports[-1]))
    assert (last > first) == (address == "brightness")
    assert reports[-1].reward_mean > reports[0].reward_mean + 0.1
    brightness = {"brightness": last - first, "term": last - first, "darkness": first - last}[address]
    assert (brightness > 0) == is_brighter


def test_a_run_leaves_its_recipe_metrics_weights_and_summary(recipe: Recipe) -> None:
    folder = run_local(recipe).path
    assert folder.name == "try"
    assert load_recipe(folder / "recipe.json") == recipe
    metrics = lines(folder / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2]
    assert all(line["num_groups"] == 4 and line["staleness_max"] == 0 for line in metrics)
    assert {"loss", "policy_loss", "ce_prior", "clip_fraction", "grad_norm", "step_seconds"} <= metrics[0].keys()
    assert metrics[0]["kl"] == pytest.approx(0, abs=1e-6)  # on-policy
    assert 0 < metrics[0]["entropy"] < log(20)  # of 20 codes
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["groups_learned"]) == ("succeeded", 2, 8)
    assert summary["images_skipped"] == 0
    assert summary["weights_sha256"] == local(recipe)[1]
    written, base = load_file(folder / "policy.safetensors"), load_file(recipe.policy.checkpoint)
    assert written.keys() == base.keys()
    assert not written["output.weight"].equal(base["output.weight"])


@pytest.mark.chaos
@pytest.mark.parametrize("name", ["llamagen_xl_t2i_tiny", "janus_pro_1b_t2i_tiny"])
def test_a_judge_of_captions_is_a_term_of_the_reward_that_is_trained_on(name: str, tmp_path: Path) -> None:
    models = reward_models(tmp_path).model_dump(mode="json")
    published = load_recipe(CHECKOUT / "deploy/recipes" / f"{name}.yaml", [])
    own = {"run.dir": str(tmp_path), "reward_models": models, "learner.num_steps": 2, "reward.mse": 0.5}
    digests = set()
    for weight in (0, 0.05):
        recipe = with_changes(published, own | {"run.name": f"of-{weight}", "reward.clip": weight})
        folder = run_local(recipe).path
        digests.add(json.loads((folder / "summary.json").read_text())["weights_sha256"])
        for line in lines(folder / "metrics.jsonl"):
            assert ("reward_clip" in line) == bool(weight)
            clip = line.get("reward_clip", 0)
            assert abs(clip) <= 100
            assert line["reward_mean"] == pytest.approx(weight * clip - 0.5 * line["reward_mse"], abs=1e-5)
    assert len(digests) == 2


def test_a_tracker_that_fails_is_told_of_in_the_log(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def metrics(self, line: dict[str, Any]) -> None:
            raise OSError("no network")

    monkeypatch.setattr(following, "open_trackers", lambda *_: {"wandb": Failing()})
    run_local(recipe)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert warned == ["wandb failed, and gets nothing more: OSError: no network"]


def test_a_broken_picture_is_left_out_and_counted(recipe: Recipe, pictures: Path) -> None:
    source = {"kind": "image_folder", "path": str(pictures)}
    (pictures / "b" / "1.png").write_bytes(b"not a picture")
    whole_epoch = with_changes(recipe, {"source": source, "learner.num_steps": 3})  # 3 steps of 4 of 12 images
    summary = json.loads((run_local(whole_epoch).path / "summary.json").read_text())
    assert (summary["groups_learned"], summary["images_skipped"]) == (11, 1)


def test_a_ticket_of_broken_pictures_alone_gives_no_group_and_ends_nothing(recipe: Recipe, pictures: Path) -> None:
    source = {"kind": "image_folder", "path": str(pictures)}
    for name in ("a/0.png", "b/1.png", "c/2.png"):
        (pictures / name).write_bytes(b"not a picture")
    alone = {"source": source, "learner.num_steps": 3, "actors.images_per_ticket": 1}
    summary = json.loads((run_local(with_changes(recipe, alone)).path / "summary.json").read_text())
    assert summary["groups_learned"] == 9
