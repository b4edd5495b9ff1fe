"""`ablate STUDY`: variants of a recipe over seeds."""

import argparse

HELP = "run variants of a recipe over seeds, and table their scores"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a YAML file, or the name of a shipped one, such as noise")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="recipe keys to set for all variants"
    )
    parser.add_argument("--out", metavar="DIR", help="folder for cells and pages (default: runs/studies)")
    parser.add_argument(
        "--jobs", type=int, default=2, metavar="N", help="cells at once, one core each (default: 2)"
    )
    parser.add_argument("--report", action="store_true", help="run nothing: write the table of finished cells")
    parser.add_argument(
        "--markdown", metavar="FILE.md", help="write the table into this file (default: DIR/STUDY.md)"
    )


def run(arguments: argparse.Namespace) -> int:
    from common.errors import RecipeError
    from common.paths import resolve
    from deploy.ablation.study import load_study

    if arguments.jobs < 1:
        raise RecipeError(f"--jobs is {arguments.jobs}: use 1 or more")
    study = load_study(arguments.study, arguments.overrides)
    from pathlib import Path

    from deploy.ablation.results import StudyFolder

    folder = StudyFolder(Path(arguments.out) if arguments.out else resolve("runs/studies"))
    failures = []
    if not arguments.report:
        from deploy.ablation.run_study import run_study

        failures = run_study(study, folder, arguments.jobs, lambda line: print(line, flush=True))
    from deploy.ablation.report import write_report
    from deploy.ablation.score_table import build_score_table
    from deploy.ablation.terminal import table_text

    print(f"\n{table_text(study, build_score_table(study, folder))}\n")
    for path in write_report(study, folder, Path(arguments.markdown) if arguments.markdown else None):
        print(f"wrote {path}")
    return 1 if failures else 0
