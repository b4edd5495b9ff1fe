"""What the Grafana dashboard shows: first what a person on call asks, then what explains it."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from common.metrics.catalogue import VERSIONS
from common.paths import CHECKOUT
from deploy.monitoring.grafana import RUN, Annotation, Panel, Row, dashboard
from deploy.runs.wording import WORDINGS

ALERTS = CHECKOUT / "deploy" / "prometheus" / "alert_rules.yml"

_STATE_COLOURS = {
    "starting": "blue",
    "training": "green",
    "scoring": "blue",
    "succeeded": "dark-green",
    "stopped": "orange",
    "failed": "red",
}
_LARGE: dict[str, Any] = {"colorMode": "background", "graphMode": "none", "justifyMode": "center"}
_NAMED = _LARGE | {"textMode": "name"}
_STACKED = {"fillOpacity": 25, "stacking": {"mode": "normal", "group": "A"}}
_COUNTED = {"axisSoftMax": 2, "thresholdsStyle": {"mode": "dashed"}}
_ANY = (None, None)
_SHARE = (0, 1)


def run_dashboard() -> dict[str, Any]:
    rows = [
        Row("$run", _on_call(), repeat="run"),
        Row("Quality", _quality()),
        Row("Throughput", _throughput()),
        Row("Learner", _learner()),
        Row("Actors", _actors()),
        Row("Judges", _judges(), is_open=False),
        Row("Buffer", _buffer()),
        Row("Memory", _memory(), is_open=False),
    ]
    return dashboard("vapi", "VA-π on Ray", rows, _annotations(), runs="vapi_driver_start_timestamp_seconds")


def _on_call() -> list[Panel]:
    """To be read from across the room."""
    at_work = f"vapi_driver_state{{{RUN}}} == 1"
    ended = f'last_over_time(vapi_driver_state{{{RUN}, state=~"succeeded|stopped|failed"}}[6h]) == 1'
    firing = f'ALERTS{{alertstate="firing", {RUN}}}'
    return [
        Panel("State", {"{{state}}": _else(f"({at_work} or on (run) {ended})", "state", "silent")}, 4, 6, "stat",
              instant=True, looks=_NAMED, colours=_STATE_COLOURS | {"silent": "dark-red"},
              description="silent: the run has not ended, and its driver does not answer."),
        Panel("Step", {
            "step": f"vapi_learner_step{{{RUN}}}",
            "of": f"vapi_learner_num_steps{{{RUN}}}",
        }, 5, 6, "stat", unit="none", looks=_LARGE | {"colorMode": "none", "textMode": "value_and_name"}),
        Panel("Time left", {"time left": f"vapi:learner_time_left:seconds{{{RUN}}}"}, 4, 6, "stat", unit="s",
              instant=True, looks=_LARGE | {"colorMode": "none", "textMode": "value"},
              defaults={"decimals": 0, "noValue": "–", "mappings": [_called("–")]},
              description="At the pace of the last half hour."),
        Panel("Reward", {
            "training": _learned(f'vapi_learner_reward{{{RUN}, term="total"}}'),
            "held-out": f'vapi_evaluation_score{{{RUN}, score="held_out_reward"}}',
        }, 6, 6, "stat", bounds=_ANY, defaults={"decimals": 4},
              looks=_LARGE | {"colorMode": "none", "textMode": "value_and_name", "graphMode": "area"}),
        Panel("Alerts", {"{{alertname}}": _else(firing, "alertname", "none")}, 5, 6, "stat", instant=True,
              looks=_NAMED, limits={1: "red"}, defaults={"noValue": "Prometheus is silent"}),
        Panel("States and alerts", {
            "{{state}}": at_work,
            "alert {{alertname}}": firing,
        }, 24, 5, "state-timeline", colours=_STATE_COLOURS | {"alert .*": "red"}),
    ]  # fmt: skip


def _else(expression: str, label: str, value: str) -> str:
    """Where the expression has no series, one that says so: a tile without any shows no name."""
    return f'{expression} or label_replace(vector(0) unless on () {expression}, "{label}", "{value}", "", "")'


def _called(text: str) -> dict[str, Any]:
    """A number that is none, in words."""
    return {"type": "special", "options": {"match": "null+nan", "result": {"text": text}}}


def _quality() -> list[Panel]:
    return [
        Panel("Reward of training and of held-out images", {
            "training {{run}}": _learned(f'vapi_learner_reward{{{RUN}, term="total"}}'),
            "held-out {{run}}": f'vapi_evaluation_score{{{RUN}, score="held_out_reward"}}',
        }, 12, 9, bounds=_ANY),
        Panel("Scores", {"{{score}} {{run}}": f"vapi_evaluation_score{{{RUN}}}"}, 12, 9, "stat", bounds=_ANY,
              looks={"colorMode": "none", "graphMode": "area", "textMode": "value_and_name"},
              description="Of held-out images and of free-running samples, each on a scale of its own."),
        Panel("KL to the behaviour policy, nats per token", {"{{run}}": _learned(f"vapi_learner_kl{{{RUN}}}")}, 8,
              description="At staleness 0 it is zero but for rounding."),
        Panel("Entropy, nats per token", {"{{run}}": _learned(f"vapi_learner_entropy{{{RUN}}}")}, 8),
        Panel("Share of tokens clipped", {"{{run}}": f"vapi_learner_clip_fraction_ratio{{{RUN}}}"}, 8,
              unit="percentunit"),
        Panel("Reward terms, before their weights", {
            "{{term}} {{run}}": _learned(f'vapi_learner_reward{{{RUN}, term!="total"}}'),
        }, 6, 6, bounds=_ANY, description="Distances: lower is better."),
        Panel("Loss", {"{{term}} {{run}}": _learned(f"vapi_learner_loss{{{RUN}}}")}, 6, 6, bounds=_ANY),
        Panel("Gradient norm before clipping", {"{{run}}": _learned(f"vapi_learner_grad_norm{{{RUN}}}")}, 6, 6),
        Panel("Learning rate", {"{{run}}": f"vapi_learner_lr{{{RUN}}}"}, 6, 6, unit="sci"),
    ]  # fmt: skip


def _learned(expression: str) -> str:
    """Without the zeros from before a driver's first step."""
    return f"{expression} and on (run) vapi_learner_steps_total{{{RUN}}} > 0"


def _throughput() -> list[Panel]:
    return [
        Panel("Groups per second", {"{{run}}": f"vapi:groups:rate1m{{{RUN}}}"}, 12, 8),
        _limited("Share of a step in which the learner waits", "vapi:learner_wait:ratio5m", 12, 8,
                 unit="percentunit", bounds=_SHARE,
                 description="High: more reward actors would help. Near 0: the learner is the bottleneck."),
        Panel("Images and samples per second", {
            "images {{run}}": f"vapi:images:rate1m{{{RUN}}}",
            "samples {{run}}": f"vapi:samples:rate1m{{{RUN}}}",
        }, 8, 6),
        Panel("Tokens per second", {"{{run}}": f"vapi:tokens:rate1m{{{RUN}}}"}, 8, 6),
        Panel("Optimizer step", {
            "{{run}}": f"vapi_learner_step{{{RUN}}}",
            "checkpoint {{run}}": f"vapi_checkpoint_step{{{RUN}}}",
        }, 8, 6),
    ]  # fmt: skip


def _learner() -> list[Panel]:
    buckets = f"vapi_learner_step_seconds_bucket{{{RUN}}}"
    return [
        Panel("Seconds of a step, by stage", {
            "{{stage}} {{run}}": f"vapi:learner_stage_seconds:mean5m{{{RUN}}}",
            "publish {{run}}": f"vapi:weights_publish_seconds:mean5m{{{RUN}}}",
        }, 12, unit="s", looks=_STACKED),
        Panel("Seconds of a step", {
            "mean {{run}}": f"vapi:learner_step_seconds:mean5m{{{RUN}}}",
            "95 % {{run}}": f"histogram_quantile(0.95, rate({buckets}[5m]))",
        }, 6, unit="s"),
        _limited("Age of the newest checkpoint", "vapi:checkpoint_age:seconds", 6, unit="s"),
        Panel("Losses in 5 minutes", {
            "ranks lost {{run}}": f"increase(vapi_learner_lost_ranks_total{{{RUN}}}[5m])",
            "steps skipped {{run}}": f"increase(vapi_learner_bad_steps_total{{{RUN}}}[5m])",
        }, 8, 6, limits={1: "red"}, looks=_COUNTED),
        Panel("Seconds to write a checkpoint", {
            "mean {{run}}":
                f"vapi_checkpoint_seconds_sum{{{RUN}}} / (vapi_checkpoint_seconds_count{{{RUN}}} > 0)",
        }, 8, 6, unit="s"),
        Panel("Bytes of a policy version", {"{{run}}": f"vapi_weights_bytes{{{RUN}}}"}, 8, 6, unit="bytes"),
    ]  # fmt: skip


def _actors() -> list[Panel]:
    return [
        Panel("Reward actors", {
            "wanted {{run}}": f"vapi_actors_wanted{{{RUN}}}",
            "ready {{run}}": f"vapi_actors_ready{{{RUN}}}",
            "pending {{run}}": f"vapi_actors_pending{{{RUN}}}",
        }, 12),
        Panel("Busy actors, by stage", {
            "{{stage}} {{run}}": f"vapi:actors_stage_seconds:rate1m{{{RUN}}}",
        }, 12, looks=_STACKED, description="Seconds that the actors spend in a stage, per second."),
        Panel("Share of time in which actors work", {"{{run}}": f"vapi:actors_busy:ratio1m{{{RUN}}}"}, 6, 6,
              unit="percentunit", bounds=_SHARE),
        Panel("Seconds to pull a policy version", {"mean {{run}}": f"vapi:weights_pull_seconds:mean5m{{{RUN}}}"},
              6, 6, unit="s"),
        Panel("Actors replaced in 5 minutes", {
            "{{run}}": f"increase(vapi_actors_restarts_total{{{RUN}}}[5m])",
        }, 6, 6, limits={1: "orange"}, looks=_COUNTED),
        Panel("Left out in 5 minutes", {
            "images skipped {{run}}": f"increase(vapi_actors_skipped_images_total{{{RUN}}}[5m])",
            "groups quarantined {{run}}": f"increase(vapi_actors_quarantined_groups_total{{{RUN}}}[5m])",
        }, 6, 6, limits={1: "orange"}, looks=_COUNTED),
    ]  # fmt: skip


def _judges() -> list[Panel]:
    """Of a run that measures its reward apart (reward.actors)."""
    return [
        Panel("Judge actors", {
            "wanted {{run}}": f"vapi_judges_wanted{{{RUN}}}",
            "ready {{run}}": f"vapi_judges_ready{{{RUN}}}",
            "pending {{run}}": f"vapi_judges_pending{{{RUN}}}",
        }, 8, 6),
        Panel("Tickets that wait for a judge", {"{{run}}": f"vapi_judges_waiting_tickets{{{RUN}}}"}, 8, 6,
              description="Always some: more judge actors would help (scale RUN rewards=N)."),
        Panel("Busy judge actors", {"{{run}}": f"rate(vapi_judges_ticket_seconds_sum{{{RUN}}}[1m])"}, 8, 6,
              description="Seconds that they spend on tickets, per second."),
        Panel("Pictures judged per second", {"{{run}}": f"rate(vapi_judges_pictures_total{{{RUN}}}[1m])"}, 8, 6),
        Panel("Judge actors replaced in 5 minutes", {
            "{{run}}": f"increase(vapi_judges_restarts_total{{{RUN}}}[5m])",
        }, 8, 6, limits={1: "orange"}, looks=_COUNTED),
        Panel("Samples without a score in 5 minutes", {
            "{{run}}": f"increase(vapi_learner_dropped_samples_total{{{RUN}}}[5m])",
        }, 8, 6, limits={1: "orange"}, looks=_COUNTED, description="Of any judge, apart or within."),
    ]  # fmt: skip


def _buffer() -> list[Panel]:
    return [
        Panel("Groups that wait for the learner", {
            "waiting {{run}}": f"vapi_buffer_groups{{{RUN}}}",
            "capacity {{run}}": f"vapi_buffer_capacity_groups{{{RUN}}}",
        }, 12),
        Panel("Tickets learned in 5 minutes, by staleness", dict(_by_staleness()), 12, 7, "bargauge", instant=True,
              looks={"orientation": "vertical", "displayMode": "gradient"}, description="Policy versions behind."),
        Panel("Fill", {
            "groups {{run}}": f"vapi_buffer_fill_ratio{{{RUN}}}",
            "bytes {{run}}": f"vapi_buffer_bytes{{{RUN}}} / vapi_buffer_capacity_bytes{{{RUN}}}",
        }, 6, 6, unit="percentunit", bounds=_SHARE),
        Panel("Mean staleness, versions", {"{{run}}": f"vapi:staleness_versions:mean5m{{{RUN}}}"}, 6, 6),
        _limited("Share of groups dropped", "vapi:dropped_groups:ratio5m", 6, 6, unit="percentunit"),
        Panel("Dropped in 5 minutes", {
            "groups {{reason}} {{run}}": f"increase(vapi_buffer_dropped_groups_total{{{RUN}}}[5m])",
            "results refused {{run}}": f"increase(vapi_buffer_refused_results_total{{{RUN}}}[5m])",
        }, 6, 6),
    ]  # fmt: skip


def _memory() -> list[Panel]:
    return [
        Panel("In RAM", {
            "largest actor {{run}}": f"vapi_actors_memory_bytes{{{RUN}}}",
            "largest rank {{run}}": f"vapi_learner_memory_bytes{{{RUN}}}",
            "driver {{run}}": f"vapi_driver_memory_bytes{{{RUN}}}",
        }, 12, unit="bytes"),
        Panel("On a GPU, at its peak", {
            "largest actor {{run}}": f"vapi_actors_gpu_memory_bytes{{{RUN}}}",
            "largest rank {{run}}": f"vapi_learner_gpu_memory_bytes{{{RUN}}}",
        }, 12, unit="bytes"),
    ]  # fmt: skip


def _limited(title: str, series: str, width: int, height: int = 7, **more: Any) -> Panel:
    """A curve with the limit at which its alert is raised."""
    limit = {float(found): "orange" for found in re.findall(rf"{series} > ([\d.]+)", ALERTS.read_text())}
    assert limit, f"no alert is raised by {series}"
    return Panel(title, {"{{run}}": f"{series}{{{RUN}}}"}, width, height, limits=limit, **more)


def _by_staleness() -> Iterator[tuple[str, str]]:
    """A bucket's tickets without those of the bucket before: Prometheus counts all up to a bound."""

    def up_to(bound: str) -> str:
        return f'sum(increase(vapi_buffer_staleness_versions_bucket{{{RUN}, le="{bound}"}}[5m]))'

    yield "0", up_to("0.0")
    for less, bound in pairwise(VERSIONS):
        name = f"{bound}" if bound == less + 1 else f"{less + 1} to {bound}"
        yield name, f"{up_to(f'{bound:.1f}')} - {up_to(f'{less:.1f}')}"
    yield f"over {VERSIONS[-1]}", f"{up_to('+Inf')} - {up_to(f'{VERSIONS[-1]:.1f}')}"


def _annotations() -> list[Annotation]:
    def told(*tones: str) -> str:
        names = [name for name, word in WORDINGS.items() if word.tone in tones and not word.is_routine]
        return _happened("|".join(names))

    return [
        Annotation("Alerts", f'ALERTS{{alertstate="firing", {RUN}}}', "{{alertname}}", "red"),
        Annotation("What went wrong", told("bad"), "{{event}}", "red"),
        Annotation("What to look at", told("warn"), "{{event}}", "orange"),
        Annotation("What came and went", told("", "good"), "{{event}}", "blue"),
        Annotation("Starts", f"vapi_driver_start_timestamp_seconds{{{RUN}}} * 1000", "started", "green",
                   value_is_time=True),
        Annotation("Checkpoints", _happened("checkpoint"), "checkpoint", "purple", is_shown=False),
    ]  # fmt: skip


def _happened(events: str) -> str:
    return f'increase(vapi_driver_events_total{{{RUN}, event=~"{events}"}}[1m]) > 0'
