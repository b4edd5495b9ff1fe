"""`python -m deploy COMMAND`. Heavy imports wait until a command needs them, so that --help is quick."""

import argparse
import sys
from collections.abc import Callable, Sequence

from deploy.ablation.command import add_ablate
from deploy.control_commands import add_control
from deploy.convert import add_convert
from deploy.monitor_command import add_monitor
from deploy.planning.command import TEXT as PLAN_TEXT
from deploy.planning.command import add_plan, run_plan
from deploy.prepare.command import add_prepare
from deploy.reporting.command import add_report
from deploy.sampling.command import add_sample_options, sample_options


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 2 with one line on standard error for a mistake that the user can mend."""
    arguments = _parse(argv)
    from common.errors import UserError
    from common.log import set_up_logging

    set_up_logging()
    try:
        return arguments.run(arguments)
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _train(arguments: argparse.Namespace) -> int:
    recipe = _recipe(arguments)
    from deploy.ray_environment import set_ray_environment

    set_ray_environment(recipe.log.format)
    from deploy.driver import train
    from deploy.summary_text import summary_text

    outcome = train(recipe)
    print(summary_text(recipe, outcome.summary, outcome.folder.path))
    return 128 + outcome.stop_signal if outcome.stop_signal is not None else 0


def _local(arguments: argparse.Namespace) -> int:
    recipe = _recipe(arguments)
    from deploy.local_run import run_local

    folder = run_local(recipe)
    print(f"run folder  {folder.path}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    recipe = _recipe(arguments)
    from deploy.check import check

    failed = 0
    for finding in check(recipe):
        failed += finding.problem is not None
        mark = "NO" if finding.problem else "ok"
        print(f"{mark}  {finding.subject:<11} {finding.problem or finding.detail}")
    return 2 if failed else 0


def _sample(arguments: argparse.Namespace) -> int:
    recipe = _recipe(arguments)
    from deploy.ray_environment import set_ray_environment

    set_ray_environment(recipe.log.format)
    from deploy.sampling.sample import sample

    print(f"wrote {sample(recipe, sample_options(arguments))}")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    recipe = _recipe(arguments)
    from deploy.evaluate import evaluate

    evaluate(recipe, arguments.checkpoint, arguments.pictures, arguments.out, arguments.grid)
    return 0


def _pretrain(arguments: argparse.Namespace) -> int:
    recipe = _recipe(arguments)
    from deploy.pretrain import pretrain

    pretrain(recipe, overwrite=arguments.overwrite, say=lambda line: print(line, flush=True))
    return 0


def _recipe(arguments: argparse.Namespace):
    from common.config.load import load_recipe
    from common.log import set_up_logging

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    set_up_logging(recipe.log.format)
    return recipe


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Overrides may stand before and after options: argparse ends a list of words at the first option."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    takes_overrides = "overrides" in arguments
    unknown = [word for word in rest if word.startswith("-") or not takes_overrides]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if takes_overrides:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy", description="VA-π post-training of autoregressive image generators on Ray."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("recipe", metavar="RECIPE", help="a YAML file, such as deploy/recipes/demo.yaml")
        sub.add_argument(
            "overrides", nargs="*", metavar="key=value", help="recipe keys to set, as in learner.lr=1e-5"
        )
        sub.set_defaults(run=run)
        return sub

    command("train", _train, "post-train through the Ray service: reward actors and a learner")
    command("local", _local, "post-train in this process: the same algorithm, no Ray")
    command("check", _check, "say what can be known before a GPU is taken")
    add_plan(command("plan", run_plan, PLAN_TEXT))
    sample = command("sample", _sample, "draw free-running pictures")
    add_sample_options(sample)
    evaluate = command("evaluate", _evaluate, "score a generator, under teacher forcing and free-running")
    evaluate.add_argument("--pictures", metavar="FOLDER_OR_NPZ", help="score these instead of drawing pictures")
    evaluate.add_argument("--out", help="also write the scores to this JSON file, and a picture grid beside it")
    evaluate.add_argument("--grid", help="write the picture grid to this PNG file")
    for sub in (sample, evaluate):
        sub.add_argument("--checkpoint", help="weights file or checkpoint folder (default: the recipe's policy)")
    pretrain = command("pretrain", _pretrain, "train tokenizer, generator and classifier from scratch")
    pretrain.add_argument(
        "--overwrite", action="store_true", help="train anew what the recipe's paths hold already"
    )
    add_ablate(commands)
    add_control(commands)
    add_monitor(commands)
    add_report(commands)
    add_prepare(commands)
    add_convert(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
