"""The log in a run's folder: this process's lines, and those that Ray hands on."""

import json
import logging
from pathlib import Path

from ray._private.ray_logging import global_worker_stdstream_dispatcher as handed_on

from common.log import log_context, set_up_logging
from deploy.cluster.worker_lines import worker_lines_to
from deploy.runs.run_log import kept_log

BATCH = {"ip": "10.0.0.1", "pid": 12, "actor_name": "RolloutActor"}


def test_lines_of_driver_and_workers_stand_in_the_order_they_came(tmp_path: Path) -> None:
    set_up_logging()
    log_context(step=0)  # tests before may have left another
    log = logging.getLogger("vapi.driver")
    with kept_log(tmp_path, "text") as kept, worker_lines_to(kept.worker_line):
        log.info("started")
        handed_on.emit(BATCH | {"lines": ["09:12:01 INFO actor-0 step 0: ready on cpu", "Killed"]})
        handed_on.emit(BATCH | {"pid": "autoscaler", "lines": ["Autoscaler status"]})
    log.info("after the run")
    handed_on.emit(BATCH | {"lines": ["late"]})
    with kept_log(tmp_path, "text"):
        log.warning("resumed")
    started, *workers, resumed = (tmp_path / "run.log").read_text().splitlines()
    assert started.endswith("INFO driver step 0: started")
    assert workers == ["09:12:01 INFO actor-0 step 0: ready on cpu", "(RolloutActor 12 on 10.0.0.1) Killed"]
    assert resumed.endswith("WARNING driver step 0: resumed")


def test_of_json_lines_each_is_an_object(tmp_path: Path) -> None:
    set_up_logging("json")
    with kept_log(tmp_path, "json") as kept, worker_lines_to(kept.worker_line):
        logging.getLogger("vapi.driver").info("started")
        handed_on.emit(BATCH | {"lines": ['{"role": "actor-0", "message": "ready"}', "Killed"]})
    set_up_logging()
    lines = [json.loads(line) for line in (tmp_path / "run.log").read_text().splitlines()]
    said = [(line["role"], line["message"]) for line in lines]
    assert said == [("driver", "started"), ("actor-0", "ready"), ("RolloutActor 12 on 10.0.0.1", "Killed")]
