"""The page about a run: what it says of runs that ended well, badly or not at all, and that it is sound HTML."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from common.errors import RecipeError
from deploy.__main__ import main
from deploy.reporting.report import render, write_report
from deploy.runs.records import read_run
from tests.deploy.reporting.conftest import SCORES, event, step

NOW = datetime(2026, 1, 2, 4, 4, 30, tzinfo=UTC)
VOID = {"meta", "link", "img", "path", "br"}


class Page(HTMLParser):
    """Text by section, tags and attributes; fails where a tag is closed that was not opened last."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag} has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(folder: Path) -> Page:
    return Page(render(read_run(str(folder)), NOW))


def test_an_ended_run_shows_scores_pictures_curves_stages_events_and_recipe(ended_run: Path) -> None:
    page = page_of(ended_run)
    headings = [attributes["id"] for attributes in page.all("h2")]
    assert headings == ["scores", "pictures", "training", "stages", "events", "recipe"]
    for words in (
        "try succeeded",
        "steps 10 of 10 groups learned 640 groups per second 16 learner waited 25% time in all 59 s",
        "actor restarts 1",
        "score before after gain against cross-entropy alone noise CE alone",
        "held-out reward higher is better −0.0500 −0.0400 +0.0100 +0.0050 0.0020 −0.0450",
        "FD over classifier features lower is better 10.0000 10.2500 −0.2500 −2.2500 0.5000 8.0000",
        "+0.0100 better",
        "−0.2500 within the noise",
        "CE alone: as many steps of cross-entropy without the reward",
        "policy loss 0 ; clip fraction 0 ; staleness largest 1 , mean 0.5 ; step time step 4 , learner wait 1 ;",
        "decode 3 75 %",
        "wait for groups 1 25 %",
        "publish and the rest 0.5 12 %",
        "+0:59 succeeded after 10 steps",
        "learner.num_steps 10 none",
        "Final weights 0123abcd",
    ):
        assert words in page.text
    verdicts = [cell["class"] for cell in page.all("td") if "verdict" in (cell.get("class") or "")]
    assert verdicts == ["verdict gain", "verdict gain", "verdict noise", "verdict loss"]
    assert [image["alt"] for image in page.all("img")] == [
        "Free-running samples in a grid: left before the run, right after it",
        "Rows of a held-out image, its reconstruction, and teacher-forced samples before and after the run",
        "Free-running samples in a grid at step 0",
        "Free-running samples in a grid at step 10",
    ]
    labels = [svg["aria-label"] or "" for svg in page.all("svg")]
    assert "Reward, steps 1 to 10: reward from -0.049 to -0.04" in labels


def test_the_page_asks_the_network_for_nothing(ended_run: Path) -> None:
    page = page_of(ended_run)
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert len(links) == 5
    assert all(value and value.startswith("data:") for value in links)
    html = render(read_run(str(ended_run)), NOW)
    assert not re.search(r"https?://|url\(|@import", html)


def test_what_a_run_says_is_escaped(run_folder: Callable[..., Path]) -> None:
    evil = "<script>alert('x')</script>\"&"
    folder = run_folder(
        [step(1, stage_seconds={evil: 1.0})],
        [
            event(0, "started"),
            event(1, "actor_lost", actor=evil, tickets=[], reason=evil),
            event(2, evil, why=evil),
            event(3, "failed", error=evil),
        ],
        {"status": "failed", "error": evil},
        changes={"policy.obtain_from": evil},
    )
    page = page_of(folder)
    assert len(page.all("script")) == 1
    assert f"It failed: {evil}" in page.text
    assert page.text.count(evil) >= 6


def test_a_failed_run_tells_why(run_folder: Callable[..., Path]) -> None:
    folder = run_folder([step(1)], [event(0, "started"), event(9, "failed", error="E: no")], {
        "status": "failed", "error": "E: no"
    })  # fmt: skip
    page = page_of(folder)
    assert "try failed" in page.text
    assert "It failed: E: no" in page.text


def test_a_stopped_run_says_after_which_step(run_folder: Callable[..., Path]) -> None:
    summary = {"status": "stopped", "steps": 2, "groups_learned": 128, "images_skipped": 3, "evaluation": None}
    page = page_of(run_folder([step(1), step(2)], [event(0, "started"), event(9, "stopped", steps=2)], summary))
    assert "It was asked to stop, and did so after step 2, with a checkpoint." in page.text
    assert "steps 2 of 10" in page.text
    assert "images skipped 3" in page.text
    assert "scores" not in [attributes.get("id") for attributes in page.all("h2")]


def test_a_run_that_goes_on_is_unfinished_whatever_its_former_summary_says(
    run_folder: Callable[..., Path],
) -> None:
    events = [event(0, "started"), event(9, "stopped", steps=2), event(30, "started", resumed_from="step-2")]
    page = page_of(run_folder([step(1), step(2)], events, {"status": "stopped", "steps": 2}))
    assert "try unfinished" in page.text
    assert "It last wrote an event 1 h 00 min ago." in page.text


def test_a_run_that_has_not_learned_yet_has_a_page(run_folder: Callable[..., Path]) -> None:
    page = page_of(run_folder([], []))
    assert "No step has been learned yet." in page.text
    assert "groups per second – learner waited – time in all –" in page.text


def test_the_scores_of_a_run_in_progress_are_those_of_its_newest_evaluation(
    run_folder: Callable[..., Path],
) -> None:
    evaluations = [{"step": 0, **SCORES}, {"step": 5, "held_out_reward": -0.045, "fd": None}]
    folder = run_folder([step(1)], [event(0, "started")], evaluations=evaluations)
    (folder / "before.json").write_text(json.dumps({"before": SCORES, "noise": SCORES}))
    text = page_of(folder).text
    assert "score before step 5 gain noise" in text
    assert "−0.0500 −0.0450 +0.0050" in text
    assert "10.0000 – – 10.0000" in text
    assert "step 5: one seed, during training" in text


def test_the_broken_last_line_of_a_killed_run_is_passed_over(run_folder: Callable[..., Path]) -> None:
    folder = run_folder([step(1), step(2)], [event(0, "started")])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    page = page_of(folder)
    assert "steps 2 of 10" in page.text
    assert "Lines that cannot be read, as a killed run leaves them, are not shown: 1." in page.text


def test_numbers_that_were_not_finite_leave_a_gap(run_folder: Callable[..., Path]) -> None:
    steps = [step(1), step(2, grad_norm=None), step(3), step(4)]
    page = page_of(run_folder(steps, [event(0, "started")]))
    (drawn,) = [attributes for attributes in page.all("figure") if "0.41" in (attributes.get("data-chart") or "")]
    assert '"values": [[0.41000000000000003, null, 0.43000000000000005, 0.44]]' in (drawn["data-chart"] or "")


def terms_chart(page: Page) -> str:
    (label,) = [svg["aria-label"] or "" for svg in page.all("svg") if "Reward terms" in (svg["aria-label"] or "")]
    return label


def test_every_term_of_the_reward_is_a_curve_by_its_name(run_folder: Callable[..., Path]) -> None:
    own = [step(number, reward_sharpness=0.5 * number, reward_broken=0.0) for number in (1, 2)]
    page = page_of(run_folder(own, []))
    assert terms_chart(page) == "Reward terms, steps 1 to 2: sharpness from 0.5 to 1; broken from 0 to 0"
    assert "Reward terms unweighted" in page.text
    assert "Reward terms unweighted;" not in page.text  # a former version did not say which is better
    assert "reward terms MSE 0.03 , LPIPS 0.01" in page.text


def test_terms_of_ones_own_have_their_direction_in_curves_and_in_the_table(
    run_folder: Callable[..., Path],
) -> None:
    better = {"sharpness": "higher", "blur": "lower"}
    own = [
        step(
            number, reward_sharpness=0.5 * number, reward_blur=0.1 * number, reward_mse=0.2 * number, better=better
        )
        for number in (1, 2)
    ]
    evaluations = [{"step": at, "held_out_sharpness": 0.1 * at, "held_out_blur": 0.3} for at in (0, 1, 2)]
    folder = run_folder(own, [event(0, "started")], evaluations=evaluations)
    before = {"held_out_sharpness": 0.1, "held_out_blur": 0.2}
    noise = dict.fromkeys(before, 0.0)
    (folder / "before.json").write_text(json.dumps({"before": before, "noise": noise, "better": better}))
    page = page_of(folder)
    labels = [svg["aria-label"] or "" for svg in page.all("svg")]
    assert (
        "Reward terms, steps 1 to 2: MSE from 0.2 to 0.4; LPIPS from 0.01 to 0.01; blur from 0.1 to 0.2" in labels
    )
    assert "Reward terms, steps 1 to 2: sharpness from 0.5 to 1" in labels
    for words in (
        "Reward terms unweighted; lower is better",
        "Reward terms unweighted; higher is better",
        "Held-out sharpness higher is better",
        "held-out sharpness higher is better 0.1000 0.2000 +0.1000 0.0000",
        "held-out blur lower is better 0.2000 0.3000 −0.1000 0.0000",
    ):
        assert words in page.text


def test_what_stays_zero_but_for_rounding_is_told_so(run_folder: Callable[..., Path]) -> None:
    page = page_of(run_folder([step(number, kl=1e-9 * number) for number in (1, 2)], []))
    assert "; KL 0 but for rounding ;" in page.text


def test_a_run_in_one_process_has_neither_actors_nor_a_learner_that_waits(run_folder: Callable[..., Path]) -> None:
    alone = {"num_actors": 0, "wait_seconds": 0.0, "actor_stage_seconds": {}}
    page = page_of(run_folder([step(number, **alone) for number in (1, 2)], [event(0, "succeeded", steps=2)]))
    for word in ("learner wait", "actors", "wait for groups"):
        assert word not in page.text.partition("Recipe")[0]


def test_terms_that_a_former_version_wrote_as_zero_are_none(run_folder: Callable[..., Path]) -> None:
    page = page_of(
        run_folder(
            [step(number, reward_mse=0.5 * number, reward_lpips=0.0, reward_l1=0.0) for number in (1, 2)], []
        )
    )
    assert terms_chart(page) == "Reward terms, steps 1 to 2: MSE from 0.5 to 1"
    assert "Reward terms unweighted; lower is better" in page.text


def test_a_recipe_of_other_code_is_shown_whole(run_folder: Callable[..., Path]) -> None:
    folder = run_folder([step(1)], [])
    (folder / "recipe.json").write_text('{"run": {"name": "old"}, "gone": 1}')
    text = page_of(folder).text
    assert "written by another version of the code" in text
    assert '"gone": 1' in text


def test_frequent_events_are_told_once_between_those_that_matter(run_folder: Callable[..., Path]) -> None:
    skips = [event(2, "image_skipped", image_id=f"{n}.png", reason="cut", is_quarantined=False) for n in range(30)]
    events = [
        event(0, "started"),
        *(event(1, "step_learned", step=n, tickets=[n]) for n in range(1, 6)),
        *skips,
        event(3, "actor_lost", actor="actor-0", tickets=[7, 8], reason="died"),
        event(4, "step_learned", step=6, tickets=[6]),
    ]
    text = page_of(run_folder([step(1)], events)).text
    assert (
        "+0:00 started +0:01 5 steps learned (1 to 5) +0:02 30 images skipped image 0.png skipped: cut image 1.png"
    ) in text
    assert "and 10 more, in events.jsonl +0:03 actor-0 lost with 2 tickets: died +0:04 step 6 learned" in text


def test_many_events_keep_the_first_and_the_last(run_folder: Callable[..., Path]) -> None:
    events = [event(0, "scaled", before=n, after=n + 1, reason="asked for") for n in range(500)]
    text = page_of(run_folder([step(1)], events)).text
    assert "380 more, in events.jsonl" in text
    assert "reward actors 0 → 1: asked for" in text
    assert "reward actors 499 → 500: asked for" in text


def test_a_large_picture_is_made_smaller(ended_run: Path) -> None:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(256, size=(700, 2400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(ended_run / "samples" / "before_after.png")
    first = page_of(ended_run).all("img")[0]
    assert (first["src"] or "").startswith("data:image/webp;base64,")
    assert len(first["src"] or "") < 4_000_000


def test_the_command_writes_beside_the_run_or_where_it_is_told(
    ended_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(ended_run)]) == 0
    assert capsys.readouterr().out == f"wrote {ended_run / 'report.html'}\n"
    assert main(["report", str(ended_run), "--out", str(tmp_path / "other" / "page.html")]) == 0
    assert (tmp_path / "other" / "page.html").read_text().startswith("<!doctype html>")


def test_a_folder_that_is_no_run_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "/nowhere"]) == 2
    assert capsys.readouterr().err == (
        "error: there is no run folder /nowhere: a folder with a recipe.json is needed\n"
    )


def test_a_place_that_cannot_be_written_names_the_option(ended_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match="name another file with --out"):
        write_report(str(ended_run), str(tmp_path / "file" / "page.html"))
