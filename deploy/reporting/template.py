"""Fills in a page that needs nothing else: its style and script are in it, and whatever it is given is escaped."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from deploy.reporting.svg_chart import svg

PAGE = Path(__file__).with_name("page")


def fill_in(template: Path, more_style: str = "", more_script: str = "", **values: Any) -> str:
    """The page that `template` makes of `values`, in the look of a run's page, with more of its own."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, PAGE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(
        style=Markup((PAGE / "page.css").read_text() + more_style),
        script=Markup((PAGE / "page.js").read_text() + more_script),
        svg=svg,
        **values,
    )
