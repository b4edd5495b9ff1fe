"""Low-rank adapters beside a policy's linear layers (LoRA, arXiv 2106.09685); by the arithmetic of `peft`.

The layers keep their names, so the base's files fit as they are. An adapter's tensors are NAME.lora_A.weight
[rank, inputs] and NAME.lora_B.weight [outputs, rank], float32, and the only ones that train.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from common.config.lora import LoraSection
from common.errors import RecipeError
from common.seeding import generator

DOWN, UP = "lora_A.weight", "lora_B.weight"  # after the name of a layer


class LoraLinear(nn.Linear):
    """A frozen linear layer, and what is trained beside it: W x + b + (alpha / rank) B A x."""

    def __init__(self, base: nn.Linear, section: LoraSection) -> None:
        """Shares the weights of `base`; the adapter lies on their device and gives zeros."""
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        device = base.weight.device
        self.lora_A = nn.Linear(base.in_features, section.rank, bias=False, device=device)
        self.lora_B = nn.Linear(section.rank, base.out_features, bias=False, device=device)
        self.scaling = section.alpha / section.rank
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.added(x)

    def added(self, x: Tensor) -> Tensor:
        """What the adapter adds, for whoever takes the product with the weight by other means."""
        return self.lora_B(self.lora_A(x)) * self.scaling


def add_adapters(policy: nn.Module, section: LoraSection, layers: Iterable[str]) -> None:
    """Give each of the linear `layers`, by name, an adapter, and freeze all the rest; in place."""
    policy.requires_grad_(False)
    for name in layers:
        parent, _, own = name.rpartition(".")
        adapted = LoraLinear(policy.get_submodule(name), section).train(policy.training)  # type: ignore[arg-type]
        setattr(policy.get_submodule(parent), own, adapted)


def draw_adapters(policy: nn.Module, seed: int) -> None:
    """Draw every A as `peft` does, uniform within ±1/√inputs: the same numbers in whatever process."""
    for index, layer in enumerate(_adapted(policy).values()):
        bound, draws = layer.in_features**-0.5, generator(seed, "adapters", index)
        drawn = torch.empty(layer.lora_A.weight.shape).uniform_(-bound, bound, generator=draws)
        with torch.no_grad():
            layer.lora_A.weight.copy_(drawn)


def layers_to_adapt(policy: nn.Module, section: LoraSection) -> tuple[str, ...]:
    """The names of the linear layers that `section` means. Raises RecipeError for targets that are none."""
    layers = [name for name, module in policy.named_modules() if type(module) is nn.Linear]
    if not section.targets:
        return tuple(name for name in layers if any(part.isdigit() for part in name.split(".")[:-1]))
    unknown = [target for target in section.targets if not any(_is_called(name, target) for name in layers)]
    if unknown:
        parts = [name.rpartition(".")[2] for name in layers]
        known = dict.fromkeys(name if part.isdigit() else part for name, part in zip(layers, parts, strict=True))
        raise RecipeError(
            f"learner.lora.targets names {', '.join(unknown)}, and no linear layer of the policy is called that: "
            f"name some of {', '.join(known)}, or leave it empty for all of the transformer blocks"
        )
    return tuple(name for name in layers if any(_is_called(name, target) for target in section.targets))


def trained_tensors(policy: nn.Module) -> dict[str, Tensor]:
    """What training changes, by name: the adapters where there are any, otherwise the whole state dict."""
    adapters: dict[str, Tensor] = {}
    for name, layer in _adapted(policy).items():
        adapters[f"{name}.{DOWN}"] = layer.lora_A.weight.detach()
        adapters[f"{name}.{UP}"] = layer.lora_B.weight.detach()
    return adapters or policy.state_dict()


def frozen_names(policy: nn.Module) -> list[str]:
    """Of the parameters that do not train."""
    return [name for name, parameter in policy.named_parameters() if not parameter.requires_grad]


def _adapted(policy: nn.Module) -> dict[str, LoraLinear]:
    return {name: module for name, module in policy.named_modules() if isinstance(module, LoraLinear)}


def _is_called(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
