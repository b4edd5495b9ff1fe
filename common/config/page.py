"""`python -m common.config.page` writes the files generated from the recipe's keys: a page and a JSON schema."""

import json

from common.config.keys import Part, parts, recipe_schema
from common.paths import CHECKOUT

PAGE = CHECKOUT / "docs" / "recipes.md"
SCHEMA = CHECKOUT / "deploy" / "recipes" / "recipe.schema.json"

_INTRODUCTION = """\
# Recipe keys

A recipe is a YAML file that describes a run completely. This page names every key of one; it is made from
[`common/config/`](../common/config) by `python -m common.config.page`.

Any key can be set on the command line by its dotted name: `learner.lr=1e-5 actors.count=4`. An unknown key, or a
value that a key cannot take, is refused before anything starts. `required` keys have no default; a section that is
left out takes its defaults, or does nothing where it is optional.

An editor with a YAML language server completes and checks a recipe whose first line names the
[JSON schema](../deploy/recipes/recipe.schema.json), as that of each shipped recipe does:
`# yaml-language-server: $schema=recipe.schema.json`.
"""


def page() -> str:
    return _INTRODUCTION + "".join(_section(part) for part in parts())


def schema() -> str:
    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"


def _section(part: Part) -> str:
    depth = "#" * (2 + part.path.count("."))
    title = f"`{part.path}`" + (f" of `{part.kind}`" if part.kind else "") if part.path else "The recipe itself"
    lines = ["", f"{depth} {title}{' (optional)' if part.is_optional else ''}", ""]
    if part.text:
        lines += [_one_line(part.text), ""]
    lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key in part.keys:
        default = "required" if key.default == "required" else f"`{key.default}`"
        cells = (f"`{key.path}`", key.type, default, _one_line(key.meaning))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    PAGE.write_text(page())
    SCHEMA.write_text(schema())
