"""The base of every recipe section: frozen, without unknown keys. Numbers are finite, and `true` is no number."""

from typing import Any, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, tree: Any) -> Any:
        """Python's booleans are numbers, YAML's are not: pydantic would read `lr: true` as 1."""
        if not isinstance(tree, dict):
            return tree
        tree = dict(tree)
        for name, field in cls.model_fields.items():
            if _names(field.annotation, int, float) and not _names(field.annotation, bool, Any, BaseModel):
                alias = field.validation_alias
                for key in alias.choices if isinstance(alias, AliasChoices) else (name,):
                    if key in tree:
                        tree[key] = _no_number(tree[key])
        return tree


class _Truth:
    """A boolean that pydantic takes for nothing else."""

    def __init__(self, value: bool) -> None:
        self._text = str(value).lower()

    def __repr__(self) -> str:
        return self._text


def _no_number(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _no_number(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_no_number(each) for each in value]
    return _Truth(value) if isinstance(value, bool) else value


def _names(annotation: Any, *types: Any) -> bool:
    """Whether one of the types, or a section for BaseModel, stands somewhere in the annotation."""
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return (BaseModel if is_section else annotation) in types or any(
        _names(each, *types) for each in get_args(annotation)
    )
