"""Recipes from files: every mistake is one clear sentence, and checking one is cheap."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from common.config.data import SourceSpec
from common.config.load import load_recipe, with_changes
from common.config.recipe import PerceptualSpec, Recipe
from common.errors import RecipeError
from common.paths import CHECKOUT

SHIPPED = sorted((CHECKOUT / "deploy" / "recipes").rglob("*.yaml"))

SMALL: dict[str, Any] = {
    "image_size": 32,
    "source": {"kind": "image_folder", "path": "pictures"},
    "tokenizer": {"size": "vq16", "checkpoint": "vq.pt"},
    "policy": {"size": "B", "checkpoint": "policy.pt"},
    "learner": {"num_steps": 10},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of a sound recipe."""
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(SMALL))
    return file


def refusal(path: Path, *overrides: str) -> str:
    """What is wrong with a recipe, as its user reads it."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def test_a_small_recipe_takes_the_papers_settings(path: Path) -> None:
    recipe = load_recipe(path)
    assert (recipe.group.size, recipe.learner.images_per_step, recipe.learner.lr) == (8, 128, 1e-6)
    assert (recipe.learner.clip_range, recipe.learner.ce_weight) == (0.2, 0.1)
    assert (recipe.reward.mse, recipe.reward.lpips) == (1, 1)
    assert (recipe.grid_size, recipe.num_tokens, recipe.tickets_per_step) == (2, 4, 16)


def test_overrides_are_yaml_values_of_dotted_keys(path: Path) -> None:
    recipe = load_recipe(
        path,
        ["learner.lr=1e-5", "run.name=fast", "evaluation.compare_temperature=null", "learner.betas=[0.8, 0.9]"],
    )
    assert (recipe.learner.lr, recipe.run.name, recipe.learner.betas) == (1e-5, "fast", (0.8, 0.9))
    assert recipe.evaluation.compare_temperature is None
    assert recipe.learner.num_steps == 10


def test_a_resolved_recipe_is_read_back_as_it_was(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path, ["buffer.max_staleness=2"])
    resolved = tmp_path / "recipe.json"
    resolved.write_text(json.dumps(recipe.model_dump(mode="json"), indent=2))
    assert load_recipe(resolved) == recipe


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_recipe_is_sound(shipped: Path) -> None:
    load_recipe(shipped)


def test_recipes_are_shipped() -> None:
    assert CHECKOUT / "deploy" / "recipes" / "mnist.yaml" in SHIPPED


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("learner.lrr=1", "learner.lr"),
        ("lerner.lr=1", "learner"),
        ("group.sise=4", "group.size"),
        ("source.pth=x", "source.path"),
        ("perceptual={family: lpips, nett: vgg}", "perceptual.net"),
        ("policy.size={num_layers: 1, num_heads: 1, dims: 4}", "policy.size.dim"),
        ("pretrain={tokenizer: {num_stepss: 1}}", "pretrain.tokenizer.num_steps"),
        ("policy.obtain_frm=x", "policy.obtain_from"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_key_of_its_section(
    override: str, meant: str, path: Path
) -> None:
    message = refusal(path, override)
    assert " is not a recipe key: " in message
    assert message.endswith(f"did you mean {meant}?")


@pytest.mark.parametrize("override", ["zzz=1", "zzz.yyy.xxx=1", "learner.zzz=1", "learner.=1", ".=1"])
def test_an_unknown_key_unlike_any_other_points_at_the_shipped_recipes(override: str, path: Path) -> None:
    assert refusal(path, override).endswith("is not a recipe key: see deploy/recipes")


@pytest.mark.parametrize("key", ["mnist", "source.image_folder", "policy.size.TransformerSize"])
def test_an_unknown_key_that_is_the_name_of_a_kind_is_named_whole(key: str, path: Path) -> None:
    overrides = ["policy.size={num_layers: 1, num_heads: 1, dim: 4}", f"{key}=1"]
    assert refusal(path, *overrides) == f"{key} is not a recipe key: see deploy/recipes"


@pytest.mark.parametrize("section", ["policy", "tokenizer"])
def test_an_older_name_of_a_key_is_still_read(section: str, path: Path) -> None:
    older = SMALL | {section: SMALL[section] | {"source": "the moon"}}
    path.write_text(yaml.safe_dump(older))
    assert load_recipe(path).model_dump()[section]["obtain_from"] == "the moon"


@pytest.mark.parametrize("in_file", ["obtain_from", "source"])
@pytest.mark.parametrize("in_override", ["obtain_from", "source"])
def test_an_override_replaces_a_key_whichever_name_each_has(in_file: str, in_override: str, path: Path) -> None:
    path.write_text(yaml.safe_dump(SMALL | {"policy": SMALL["policy"] | {in_file: "the moon"}}))
    assert load_recipe(path, [f"policy.{in_override}=mars"]).policy.obtain_from == "mars"


def test_two_names_of_one_key_are_refused(path: Path) -> None:
    path.write_text(yaml.safe_dump(SMALL | {"policy": SMALL["policy"] | {"source": "a", "obtain_from": "b"}}))
    assert refusal(path) == (
        "policy.source is an older name of policy.obtain_from, which is given too: leave policy.source out"
    )


def test_an_override_within_a_section_that_is_null_makes_it(path: Path) -> None:
    autoscale = load_recipe(path, ["actors.autoscale=null", "actors.autoscale.max=3"]).actors.autoscale
    assert autoscale is not None
    assert autoscale.max == 3


@pytest.mark.parametrize(
    ("section", "member"),
    [("source", member) for member in get_args(get_args(SourceSpec)[0])]
    + [("perceptual", member) for member in get_args(get_args(PerceptualSpec)[0])],
)
def test_each_kind_of_a_section_is_spoken_of_by_its_section_alone(
    section: str, member: type[BaseModel], path: Path
) -> None:
    tag = "kind" if section == "source" else "family"
    (kind,) = get_args(member.model_fields[tag].annotation)
    assert refusal(path, f"{section}={{{tag}: {kind}, zzz: 1}}").startswith(f"{section}.zzz is not a recipe key")


@pytest.mark.parametrize("key", ["learner.lr", "zzz.yyy"])
def test_a_dotted_key_in_a_file_is_an_unknown_key(key: str, path: Path) -> None:
    path.write_text(yaml.safe_dump(SMALL | {key: 1}))
    assert refusal(path).startswith(f"{key} is not a recipe key: ")


@pytest.mark.parametrize(
    ("section", "key"),
    [(None, "image_size"), (None, "learner"), ("policy", "checkpoint"), ("learner", "num_steps")],
)
def test_a_missing_key_is_named(section: str | None, key: str, path: Path) -> None:
    tree = json.loads(json.dumps(SMALL))
    del (tree[section] if section else tree)[key]
    path.write_text(yaml.safe_dump(tree))
    assert refusal(path) == f"{section + '.' if section else ''}{key} is missing: set it"


@pytest.mark.parametrize(
    ("override", "key"), [("source={path: x}", "source.kind"), ("perceptual.net=vgg", "perceptual.family")]
)
def test_a_section_that_does_not_say_its_kind_is_told_the_key(override: str, key: str, path: Path) -> None:
    assert refusal(path, override) == f"{key} is missing: set it"


def test_a_size_of_ones_own_that_lacks_a_key_is_told_the_key(path: Path) -> None:
    assert refusal(path, "policy.size={num_layers: 2, dim: 8}") == "policy.size.num_heads is missing: set it"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("learner.lr=0", "learner.lr is 0: input should be greater than 0"),
        ("learner.lr=fast", "learner.lr is 'fast': input should be a valid number, unable to parse"),
        ("learner.num_steps=2.5", "learner.num_steps is 2.5: input should be a valid integer"),
        ("learner.betas=[0.9, 1]", "learner.betas.1 is 1: input should be less than 1"),
        ("learner=3", "learner is 3: input should be a valid dictionary"),
        ("group.size=0", "group.size is 0: input should be greater than or equal to 1"),
        ("context.noise=1.5", "context.noise is 1.5: input should be less than or equal to 1"),
        ("compute.device=tpu", "compute.device is 'tpu': input should be 'auto', 'cpu' or 'cuda'"),
        ("policy.size=XXXL", "policy.size is 'XXXL': input should be 'B', 'L', 'XL', 'XXL' or '3B'"),
        (
            "source.kind=tar",
            "source.kind is 'tar': input should be one of 'mnist', 'emoji', 'image_folder', 'parquet'",
        ),
        ("actors.label_selector={1: a}", "actors.label_selector.1 is 1: YAML reads it as the number 1; quote it"),
        ("run.name=a/b", "run.name is 'a/b': string should match pattern"),
        ("seed=-1", "seed is -1: input should be greater than or equal to 0"),
        ("evaluation.seed=-1", "evaluation.seed is -1: input should be greater than or equal to 0"),
        ("source.split_seed=-1", "source.split_seed is -1: input should be greater than or equal to 0"),
        (
            "tokenizer.size={channel_multipliers: []}",
            "tokenizer.size.channel_multipliers is []: tuple should have",
        ),
    ],
)
def test_an_impossible_value_is_shown_with_what_is_needed(override: str, sentence: str, path: Path) -> None:
    assert refusal(path, override).startswith(sentence)


def test_a_buffer_too_small_for_the_staleness_is_told_the_bytes_needed(path: Path) -> None:
    overrides = ["buffer.max_staleness=3", "buffer.max_bytes=100000"]
    need = 4 * 128 * load_recipe(path).group_bytes
    message = refusal(path, *overrides)
    assert "buffer.max_bytes is 100000, but max_staleness 3 with 128 images a step keeps 512 groups" in message
    assert f"raise buffer.max_bytes to at least {need}, or lower buffer.max_staleness" in message
    assert load_recipe(path, [overrides[0], f"buffer.max_bytes={need}"]).buffer_capacity == 512
    refusal(path, overrides[0], f"buffer.max_bytes={need - 1}")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["learner.images_per_step=100"],
            "learner.images_per_step is 100 and actors.images_per_ticket is 8: the first must be a multiple",
        ),
        (["actors.count=0"], "actors.count is 0, and with placement split nobody else rolls out"),
        (["placement=colocated", "buffer.max_staleness=1"], "placement is colocated and buffer.max_staleness 1"),
        (
            ["placement=colocated", "buffer.max_staleness=0", "actors.autoscale={max: 3}"],
            "placement is colocated and actors.autoscale set",
        ),
        (
            ["placement=colocated", "buffer.max_staleness=0", "profile=published"],
            "placement is colocated and profile published",
        ),
        (
            ["learner.num_ranks=2", "learner.num_gpus=0.5"],
            "learner.num_ranks is 2 and learner.num_gpus 0.5: two ranks on one GPU hang in NCCL; set "
            "learner.num_gpus=1, or learner.num_ranks=1",
        ),
        (["learner.num_ranks=129"], "learner.num_ranks is 129, more than learner.images_per_step (128)"),
        (
            ["image_size=40"],
            "image_size is 40, but the tokenizer halves images 4 times: use a multiple of 16",
        ),
        (["tokenizer.size={channels: 48}"], "tokenizer.size.channels is 48: use a multiple of 32"),
        (
            ["policy.size={num_layers: 1, num_heads: 4, dim: 20}"],
            "policy.size.dim is 20 with 4 heads: dim / num_heads must be a multiple of 4",
        ),
        (
            ["evaluation.enabled=true"],
            "evaluation.classifier names no weights file, and the scores need a classifier: set it, or "
            "evaluation.features=inception, or set evaluation.enabled=false",
        ),
        (
            ["evaluation={enabled: true, features: inception, classifier: a.pt}"],
            "evaluation.features is inception, but evaluation.inception_weights names no weights file: set it, or "
            "evaluation.features=efficientnet, whose weights come with the extra `demo`",
        ),
        (
            [
                "source={kind: parquet, path: shards}",
                "policy.conditioning=text",
                "evaluation={enabled: true, classifier: a.pt}",
            ],
            "evaluation.features is classifier, but policy.conditioning is text and captions have no classes",
        ),
    ],
)
def test_sections_that_contradict_each_other_are_refused(overrides: list[str], sentence: str, path: Path) -> None:
    assert refusal(path, *overrides).startswith(sentence)


@pytest.mark.parametrize("override", ["learner.lr", "=3", ""])
def test_an_override_without_key_or_value_is_shown_how_to_write_one(override: str, path: Path) -> None:
    assert refusal(path, override) == f"'{override}' is no override: write key=value, as in learner.lr=1e-5"


def test_an_override_that_is_no_yaml_is_refused(path: Path) -> None:
    assert refusal(path, "seed=[1") == "'seed=[1': the value is not YAML; quote it"


def test_an_override_below_a_value_is_refused(path: Path) -> None:
    assert refusal(path, "learner.num_steps.x=3") == (
        "learner.num_steps.x: learner.num_steps is a value, not a section"
    )


def test_a_recipe_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    gone = tmp_path / "gone.yaml"
    assert refusal(gone).startswith(f"no recipe at {gone}: name a file, or one of ar_grpo_xl_c2i, ")


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00", b"!!python/object/apply:os.getpid []", b"[1]: 2"])
def test_a_file_that_is_no_yaml_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path} is not a readable YAML file: ")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"no recipe at {tmp_path}: it is a folder; name a file in it"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("learner: {num_steps: 3}\n", "line {} gives learner again, which line 2 gives: keep one of them"),
        (
            "run:\n  name: a\n  dir: b\n  name: a\n",
            "line {3} gives run.name again, which line {1} gives: keep one of them",
        ),
        (
            "reward:\n  python:\n    'm:a': 1\n    m:a: 2\n",
            "line {3} gives reward.python.m:a again, which line {2} gives",
        ),
        ("log: [{a: 1}, {b: 1, b: 2}]\n", "line {} gives log[1].b again, which line {} gives"),
    ],
)
def test_a_key_given_twice_is_refused_with_both_lines(text: str, sentence: str, path: Path) -> None:
    path.write_text(path.read_text() + text)
    first = path.read_text().count("\n") - text.count("\n") + 1
    for number in range(5):
        sentence = sentence.replace(f"{{{number}}}", str(first + number))
    assert refusal(path).startswith(sentence.replace("{}", str(first)))


def test_a_key_given_twice_in_an_override_is_refused(path: Path) -> None:
    override = "learner={num_steps: 3, num_steps: 4}"
    assert refusal(path, override).startswith(f"'{override}': line 1 gives num_steps again")


def test_anchors_and_merged_keys_are_no_keys_given_twice(path: Path) -> None:
    text = "x: &x {num_cpus: 2, num_gpus: 1}\nactors: {<<: *x, num_gpus: 0}\n"
    path.write_text(path.read_text() + text)
    assert refusal(path).startswith("x is not a recipe key")  # so the rest was read


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("learner.lr=true", "learner.lr is true: input should be a valid number"),
        ("seed=yes", "seed is true: input should be a valid integer"),
        ("learner.betas=[0.9, off]", "learner.betas.1 is false: input should be a valid number"),
        ("reward.mse_weight=true", "reward.mse_weight is true: input should be a valid number"),
        ("reward.python={a:b: true}", "reward.python.a:b is true: input should be a valid number"),
        ("sampling.guidance_stop=true", "sampling.guidance_stop is true: input should be a valid integer"),
        ("learner.lr=.inf", "learner.lr is inf: input should be a finite number"),
        ("learner.lr=1e999", "learner.lr is '1e999': input should be a finite number"),
        ("learner.max_grad_norm=.nan", "learner.max_grad_norm is nan: input should be a finite number"),
        ("reward.python={a:b: .inf}", "reward.python.a:b is inf: input should be a finite number"),
        ("run.name=2024", "run.name is 2024: YAML reads it as the number 2024; quote it"),
        ("run.name=on", "run.name is True: YAML reads it as the truth value true; quote it"),
        (
            "checkpoint.url=2024-01-02",
            "checkpoint.url is datetime.date(2024, 1, 2): YAML reads it as the date 2024-01-02",
        ),
    ],
)
def test_what_yaml_reads_otherwise_than_it_looks_is_refused(override: str, sentence: str, path: Path) -> None:
    assert refusal(path, override).startswith(sentence)


@pytest.mark.parametrize("text", ["run: {name: 2024-13-01}", "a: " + "[" * 5000, "a: 0b_"])
def test_what_pyyaml_itself_stumbles_over_is_one_sentence(text: str, path: Path) -> None:
    path.write_text(text)
    assert refusal(path).startswith(f"{path} is not a readable YAML file: ")


def test_true_stays_a_value_of_switches(path: Path) -> None:
    assert load_recipe(path, ["compute.compile=yes"]).compute.compile is True


@pytest.mark.parametrize("content", ["", "- 1", "mnist"])
def test_a_file_without_sections_is_refused(content: str, path: Path) -> None:
    path.write_text(content)
    assert refusal(path) == f"{path} holds no recipe: a mapping of sections is needed"


def test_changes_give_another_recipe_that_is_checked_again(tiny_recipe: Recipe) -> None:
    changed = with_changes(tiny_recipe, {"learner.lr": 0.5, "evaluation.num_samples": 30})
    assert (changed.learner.lr, changed.evaluation.num_samples) == (0.5, 30)
    assert tiny_recipe.learner.lr == 1e-3
    assert with_changes(changed, {"learner.lr": 1e-3, "evaluation.num_samples": 2000}) == tiny_recipe
    with pytest.raises(ValueError, match="must be a multiple of the second"):
        with_changes(tiny_recipe, {"learner.images_per_step": 5})
    with pytest.raises(ValueError, match=r"learner\.lrr\s+Extra inputs"):
        with_changes(tiny_recipe, {"learner.lrr": 1})


def test_a_recipe_is_frozen(tiny_recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="frozen"):
        tiny_recipe.learner.lr = 1.0  # type: ignore[misc]


def test_loading_recipes_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys; import common.config.page; from common.config.load import load_recipe; "
        "load_recipe('deploy/recipes/mnist.yaml'); common.config.page.page(); "
        "print(sorted({'torch', 'ray', 'numpy', 'pyarrow'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


OLDER = {"mse_weight": 0.5, "lpips_weight": 0.25, "l1_weight": 2.0}
NAMED = {name.removesuffix("_weight"): weight for name, weight in OLDER.items()}


def with_reward(path: Path, reward: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(SMALL | {"reward": reward}))
    return path


def test_the_older_names_of_the_reward_s_weights_mean_the_same_in_files_and_overrides(path: Path) -> None:
    named = load_recipe(with_reward(path, NAMED))
    assert named.reward.weights == {"mse": 0.5, "lpips": 0.25, "l1": 2.0}
    assert load_recipe(with_reward(path, OLDER)) == named
    with_reward(path, {})
    assert load_recipe(path, [f"reward.{name}={weight}" for name, weight in OLDER.items()]) == named
    assert load_recipe(path, [f"reward={json.dumps(OLDER)}"]) == named


def test_an_override_by_either_name_takes_the_place_of_what_the_file_says_by_the_other(path: Path) -> None:
    assert load_recipe(with_reward(path, OLDER), ["reward.mse=3"]).reward.mse == 3
    assert load_recipe(with_reward(path, NAMED), ["reward.mse_weight=3"]).reward.mse == 3
    assert load_recipe(path, ["reward.mse_weight=3", "reward.mse=4"]).reward.mse == 4
    changed = with_changes(load_recipe(path), {"reward.lpips_weight": 0, "reward.l1": 7})
    assert (changed.reward.lpips, changed.reward.l1) == (0, 7)


def test_a_resolved_recipe_of_the_former_version_is_read_and_written_by_the_names_of_today(path: Path) -> None:
    named = load_recipe(with_reward(path, NAMED)).model_dump(mode="json")
    former = {key: value for key, value in named.items() if key not in ("rollout", "reward")}
    reward = {key: value for key, value in named["reward"].items() if key not in (*NAMED, "python")}
    path.write_text(json.dumps(former | {"reward": OLDER | reward}))
    assert load_recipe(path).model_dump(mode="json") == named


@pytest.mark.parametrize("name", ["mse", "lpips", "l1"])
def test_both_names_of_a_weight_at_once_are_refused(name: str, path: Path) -> None:
    both = {name: 1, f"{name}_weight": 1}
    key = f"reward.{name}_weight"
    sentence = f"{key} is an older name of reward.{name}, which is given too: leave {key} out"
    assert refusal(with_reward(path, both)) == sentence
    with_reward(path, {})
    assert refusal(path, f"reward={json.dumps(both)}") == sentence


@pytest.mark.parametrize("key", ["reward.mse", "reward.mse_weight"])
def test_a_weight_below_zero_is_refused_by_the_name_that_was_used(key: str, path: Path) -> None:
    assert refusal(path, f"{key}=-1") == f"{key} is -1: input should be greater than or equal to 0"


def test_terms_of_ones_own_have_a_weight_each_or_are_one_address(path: Path) -> None:
    reward = load_recipe(path, ["reward.python={own:sharpness: 0.5, other.rewards:colour: 2}"]).reward
    assert reward.weights == {"mse": 1, "lpips": 1, "sharpness": 0.5, "colour": 2}
    assert reward.own_terms == {"sharpness": "own:sharpness", "colour": "other.rewards:colour"}
    assert load_recipe(path, ["reward.python=own:sharpness"]).reward.python == {"own:sharpness": 1}
    assert load_recipe(path, ["reward.python={own:sharpness: 0}"]).reward.weights == {"mse": 1, "lpips": 1}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("sharpness", "reward.python names 'sharpness': write module:attribute, as in my_rewards:sharpness"),
        ("'own:'", "reward.python names 'own:': write module:attribute, as in my_rewards:sharpness"),
        ("rewards/own.py:a", "reward.python names 'rewards/own.py:a': write module:attribute, as in"),
        ("{own:sharpness: -1}", "reward.python.own:sharpness is -1: input should be greater than or equal to 0"),
        (
            "{own:a: 1, other:a: 2}",
            "reward.python names two terms a: give the attribute of one of them another",
        ),
        (
            "own:l1",
            "reward.python names a term l1, which is the name of something else that is measured",
        ),
        ("own:MSE", "reward.python names a term MSE, which is the name of something else that is measured"),
        ("own:std", "reward.python names a term std, which is the name of something else that is measured"),
    ],
)
def test_a_term_that_cannot_be_named_so_is_refused(value: str, sentence: str, path: Path) -> None:
    assert refusal(path, f"reward.python={value}").startswith(sentence)
