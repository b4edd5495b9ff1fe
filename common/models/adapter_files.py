"""Adapters in files, as `peft` has them: adapter_model.safetensors beside adapter_config.json.

The field's tools load what is written here, and what they write can be sampled from and merged. The metadata of
ours also say which base weights the adapters belong to: beside others they mean nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from common.config.lora import LoraSection
from common.errors import CheckpointError
from common.hub import SCHEME, located
from common.models.lora import DOWN, UP, add_adapters
from common.models.weights_files import read_weights
from common.models.weights_reading import not_finite, shapes_of, some
from common.weights.snapshot import weights_sha256

ADAPTERS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."  # of every name: peft's own modules around the model
_BASE_SHA256 = "base_sha256"  # in the metadata
# Kinds of adapters that are not ours, by peft's key: each must be absent, or what stands here.
_PLAIN: Mapping[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "lora_bias": False,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "layer_replication": None,
    "trainable_token_indices": None,
}


@dataclass(frozen=True)
class Base:
    """The weights that adapters were trained beside."""

    checkpoint: str  # as the recipe names them
    sha256: str  # of their tensors, whatever the file; "" where the adapters' file does not say


@dataclass(frozen=True)
class AdaptersOf:
    """What a run's adapters are: their settings, and what they are trained beside."""

    section: LoraSection
    base: Base


@dataclass(frozen=True)
class Adapters:
    """What a file of adapters holds."""

    path: Path
    section: LoraSection
    tensors: Mapping[str, Tensor]  # by the policy's names
    base: Base

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_layer(name) for name in self.tensors))

    def require_base(self, weights: Mapping[str, Tensor], checkpoint: str) -> None:
        """Raise CheckpointError where `weights`, read from `checkpoint`, are others than those trained beside."""
        found = weights_sha256(weights) if self.base.sha256 else ""
        if found != self.base.sha256:
            raise CheckpointError(
                f"The adapters {self.path} were trained beside {self.base.checkpoint} "
                f"(sha256 {self.base.sha256[:12]}), and {checkpoint} holds other weights (sha256 {found[:12]}): "
                "point policy.checkpoint at those."
            )

    def add_to(self, policy: nn.Module) -> None:
        """Give the policy these adapters. Raises CheckpointError where they do not fit."""
        linear = {name for name, module in policy.named_modules() if type(module) is nn.Linear}
        strange = [name for name in self.layers if name not in linear]
        if not strange:
            add_adapters(policy, self.section, self.layers)
        own = shapes_of(policy.state_dict())
        lacking = [f"{name}.{end}" for name in self.layers for end in (DOWN, UP)]
        misfits = strange or [
            name for name in lacking if name not in self.tensors or own[name] != tuple(self.tensors[name].shape)
        ]
        if misfits:
            raise CheckpointError(
                f"The adapters {self.path} do not fit the policy that the recipe describes, {some(misfits)}: name "
                "the recipe that they were trained by."
            )
        policy.load_state_dict(dict(self.tensors), strict=False)

    def merged_into(self, weights: Mapping[str, Tensor], *, keep_dtype: bool) -> dict[str, Tensor]:
        """The base's weights with W + (alpha / rank) B A, added in float32; rounded to W's dtype to keep it.

        Raises CheckpointError where a layer is missing or of another size.
        """
        merged, scaling = dict(weights), self.section.alpha / self.section.rank
        for layer in self.layers:
            name = f"{layer}.weight"
            base, down, up = weights.get(name), *(self.tensors.get(f"{layer}.{end}") for end in (DOWN, UP))
            if base is None or down is None or up is None or base.shape != (len(up), down.shape[1]):
                raise CheckpointError(
                    f"The adapters {self.path} do not fit {self.base.checkpoint} at {name}: name the recipe that "
                    "they were trained by."
                )
            added = base.float() + scaling * (up.float() @ down.float())
            merged[name] = added.to(base.dtype) if keep_dtype else added
        return merged


def adapters_at(checkpoint: str | Path | None, setting: str) -> Path | None:
    """The file of adapters at a path, or in a folder such as a run's checkpoint; None where other weights are."""
    if checkpoint is None:
        return None
    path = located(checkpoint, setting)
    if str(checkpoint).startswith(SCHEME) and path.name == ADAPTERS:
        located(str(checkpoint).removesuffix(ADAPTERS) + CONFIG, setting)  # into the same folder of the cache
    path = path / ADAPTERS if path.is_dir() else path
    return path if path.name == ADAPTERS and path.is_file() else None


def read_adapters(path: Path) -> Adapters:
    """The adapters in a file beside their config. Raises CheckpointError."""
    settings, section, stored, sha256 = _read(path)
    unknown = [f"{key} {settings[key]}" for key, plain in _PLAIN.items() if settings.get(key, plain) != plain]
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in stored.items()}
    unknown += [name for name in tensors if not name.endswith((f".{DOWN}", f".{UP}"))]
    if unknown or not tensors:
        raise CheckpointError(
            f"The adapters {path} are not those of linear layers alone, {some(unknown) or 'they are none'}: merge "
            "them into their base by the tool that made them."
        )
    if sick := not_finite(tensors):
        raise CheckpointError(f"The adapters {path} hold NaN or infinity in {sick}: get a sound copy.")
    return Adapters(path, section, tensors, Base(str(settings.get("base_model_name_or_path") or ""), sha256))


def _read(path: Path) -> tuple[dict[str, Any], LoraSection, dict[str, Tensor], str]:
    """The config, what of it is ours, all tensors, and the base's SHA-256 if it is there."""
    try:
        settings = json.loads(path.with_name(CONFIG).read_text())
        section = LoraSection(rank=settings["r"], alpha=settings["lora_alpha"])
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return settings, section, tensors, (file.metadata() or {}).get(_BASE_SHA256, "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(
            f"The adapters {path} cannot be read, with {CONFIG} beside them ({reason}): get both anew."
        ) from error


def read_base(checkpoint: str) -> dict[str, Tensor]:
    """The base weights that a recipe names, as stored. Raises CheckpointError."""
    return read_weights(checkpoint, noun="policy weights", setting="policy.checkpoint")


def base_of(checkpoint: str) -> Base:
    """The base weights that a recipe names, all of them read and digested."""
    return Base(checkpoint, weights_sha256(read_base(checkpoint)))


def stored_names(names: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under peft's names."""
    return {f"{_PREFIX}{name}": value for name, value in names.items()}


def metadata(base: Base) -> dict[str, str]:
    """Of the file of adapters."""
    return {"format": "pt", _BASE_SHA256: base.sha256}


def peft_config(section: LoraSection, names: Mapping[str, Any], base: Base) -> dict[str, Any]:
    """What adapter_config.json says of adapters with these tensors' names."""
    return {
        **_PLAIN,
        "base_model_name_or_path": base.checkpoint,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(section.alpha) if section.alpha.is_integer() else section.alpha,
        "lora_dropout": 0.0,
        "r": section.rank,
        "target_modules": sorted({_layer(name) for name in names}),
        "task_type": None,
    }


def _layer(name: str) -> str:
    return name.removesuffix(f".{DOWN}").removesuffix(f".{UP}")
