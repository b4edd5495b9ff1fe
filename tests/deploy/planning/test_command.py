"""`plan` as a user runs it."""

import json

import pytest

from common.paths import CHECKOUT
from deploy.__main__ import main
from deploy.planning.gpus import EXAMPLE, GPUS, Utilisation, utilisation_of

RECIPES = CHECKOUT / "deploy" / "recipes"


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["plan", *argv]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["plan", *argv]) == 2
    return capsys.readouterr().err


def test_it_needs_no_weights_and_says_that_nothing_was_measured(
    recipe_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(
        capsys, recipe_file, "policy.checkpoint=gone.pt", "tokenizer.checkpoint=gone.pt", "source.path=gone"
    )
    lines = text.splitlines()
    assert lines[0] == "try: 1 reward actor and 1 learner rank, each on NVIDIA A100 SXM, 80 GB"
    assert lines[1] == "An estimate by arithmetic: nothing of it was run or measured."
    for heading in ("ARITHMETIC, GFLOP", "MEMORY, MB", "OBJECT STORE", "It fits", "TIME, estimated"):
        assert any(line.startswith(heading) for line in lines)
    assert max(map(len, lines)) <= 115


def test_it_says_which_terms_of_the_reward_it_knows_nothing_of(
    recipe_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, recipe_file, "reward.python={gone:sharpness: 0.5, gone:colour: 1}")
    assert text.splitlines()[2] == "Not counted: reward terms of your own, sharpness, colour."
    assert "Not counted" not in printed(capsys, recipe_file)


JUDGED = ("reward.classifier=1", "evaluation.classifier=judge.safetensors", "reward.actors.count=2")


def test_judge_actors_have_their_memory_their_seconds_and_the_number_that_is_enough(
    recipe_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = " ".join(printed(capsys, recipe_file, *JUDGED).split())
    assert "1 reward actor, 2 judge actors and 1 learner rank" in text
    assert "Judges, of the files here or of the usual sizes: classifier." in text
    assert "Not counted" not in text
    assert "(actors.num_gpus, learner.num_gpus, reward.actors.num_gpus) and is planned as if it did" in text
    assert "reward actor learner rank judge actor" in text
    assert "It fits: all processes on their GPUs, groups, pictures and weights" in text
    for said in (
        "judges the samples",
        "pictures, a step",
        "seconds of 2 judge actors",
        "until the last is judged",
    ):
        assert said in text
    assert "A judge actor takes < 0.001 s for a ticket of 2 groups. For these actors and ranks" in text
    assert "reward.actors.count=1 is enough" in text
    plan = json.loads(printed(capsys, recipe_file, *JUDGED, "--json"))
    assert plan["judge_bytes"] == plan["judge_memory"]["frozen"] + plan["judge_memory"]["working"] + 10**9
    assert plan["judge_flops"] == plan["work"]["judge"]["classifier"] > 0


def test_what_a_service_takes_is_not_known_and_said(recipe_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    http = ("reward.http.url=http://judge:80/score", "reward.http.concurrency=3", "reward.http.retries=0")
    text = " ".join(printed(capsys, recipe_file, *http).split())
    assert (
        "Not counted: how long the service behind reward.http takes. Each reward actor has at most 3 requests of "
        "8 pictures under way (reward.http.concurrency, batch_size); a request has 30 s for its answer, 1 time at "
        "most (timeout_seconds, retries). A step has 16 pictures for it; all times below are without it."
    ) in text
    apart = " ".join(printed(capsys, recipe_file, *http, "reward.actors.count=2").split())
    assert "Not counted: the memory and time of judge actors, which have no models that are known here." in apart
    assert "Each judge actor has at most 3 requests" in apart
    assert "seconds to score a step's images" in apart


@pytest.mark.parametrize("name", ["mnist", "llamagen_xl_c2i_tiny", "llamagen_xl_t2i_tiny", "ar_grpo_xl_t2i_tiny"])
def test_a_shipped_recipe_is_planned(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads(printed(capsys, str(RECIPES / f"{name}.yaml"), "--json"))
    assert plan["problems"] == []
    assert plan["is_measured"] is False
    assert plan["timing"]["saturating"]["num_actors"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llamagen_xl_c2i", "llamagen_xl_t2i"])
def test_a_recipe_of_the_paper_is_planned(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads(
        printed(capsys, str(RECIPES / f"{name}.yaml"), "--json", "ray.object_store_bytes=20000000000")
    )
    assert plan["problems"] == []
    assert plan["actor_bytes"] < plan["learner_bytes"] < 40e9


def test_the_json_holds_what_the_text_says(recipe_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads(
        printed(capsys, recipe_file, "--gpu", "L4", "--learner-ranks", "2", "--json", "actors.count=3")
    )
    assert plan["run"] == "try"
    assert plan["gpu"]["name"] == "NVIDIA L4, 24 GB"
    assert plan["timing"]["recipe"]["num_actors"] == 3
    assert plan["actor_flops"] == sum(
        plan["work"]["actor"][stage] for stage in ("encode", "policy", "head", "decode", "perceptual")
    )
    text = printed(capsys, recipe_file, "--gpu", "l4", "--learner-ranks", "2", "actors.count=3")
    assert text.startswith("try: 3 reward actors and 2 learner ranks, each on NVIDIA L4, 24 GB\n")
    assert f"{plan['actor_flops'] / 1e9:.2f}" in text


def test_what_does_not_fit_is_said_with_its_key(recipe_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    keys = ("ray.object_store_bytes=80000000", "learner.images_per_step=20000", "buffer.max_staleness=1")
    text = printed(capsys, recipe_file, *keys)
    assert "DOES NOT FIT: a local Ray's object store has 0.1 GB and must hold" in text
    assert "set ray.object_store_bytes=1000000000 (on a cluster, for every node)." in " ".join(text.split())


def test_a_gpu_that_is_not_known_is_one_line(recipe_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, recipe_file, "--gpu", "z9000")
    assert said == (
        f"error: --gpu is z9000: the known ones are {', '.join(GPUS)}; another one is described by its numbers, "
        "as in tflops=312,gb=80,gbps=2039\n"
    )


def test_a_gpu_of_ones_own_is_its_numbers(capsys: pytest.CaptureFixture[str], recipe_file: str) -> None:
    own = printed(capsys, recipe_file, "--gpu", "gb=40, gbps=1555,tflops=100".replace(" ", ""))
    assert "own GPU, 40 GB" in own
    for text in (
        "tflops=1",
        "tflops=1,gb=2,gbps=0",
        "tflops=1,gb=2,gbps=x",
        "tflops=1,gb=2,gbps=inf",
        "a=1,b=2,c=3",
    ):
        said = refused(capsys, recipe_file, "--gpu", text)
        assert said == f"error: --gpu is {text}: give tflops, gb, gbps, each above 0, as in {EXAMPLE}\n"


def test_too_many_learner_ranks_are_one_line(recipe_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, recipe_file, "--learner-ranks", "5")
    assert "learner.num_ranks is 5, more than learner.images_per_step (4)" in said


def test_utilisation_is_one_share_or_one_a_kind() -> None:
    assert utilisation_of("0.4") == Utilisation(0.4, 0.4)
    assert utilisation_of("convolution=0.3") == Utilisation(convolution=0.3)
    assert utilisation_of("transformer=0.5,convolution=1") == Utilisation(0.5, 1.0)


@pytest.mark.parametrize("text", ["0", "1.5", "fast", "decoder=0.4", "transformer=0.4=2", ""])
def test_a_utilisation_that_is_none_is_one_line(
    text: str, recipe_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, recipe_file, "--utilisation", text)
    assert said.startswith(f"error: --utilisation is {text}: give a share above 0 and at most 1")


def test_every_gpu_of_the_table_is_faster_the_fewer_bits() -> None:
    for gpu in GPUS.values():
        assert gpu.bfloat16 > gpu.tf32 >= gpu.float32


@pytest.mark.slow
def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    page = (CHECKOUT / "docs" / "planning.md").read_text()
    assert printed(capsys, str(RECIPES / "llamagen_xxl_c2i.yaml")) in page
