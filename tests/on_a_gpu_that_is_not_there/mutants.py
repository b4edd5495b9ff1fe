"""Slips of one line which no test on a CPU can see."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any

import pytest

from actors import context_noise, incoming_weights, rollout_pipeline
from actors.evaluation import chunks, free_running
from common import code_credit, machine, pixels, token_grid
from common.models import block_stack, cached_decoding, loading
from common.models.llamagen import transformer
from common.models.perceptual import staged_lpips
from common.token_distribution import TokenDistribution
from common.weights import snapshot
from learner import optimizer
from tests.on_a_gpu_that_is_not_there.variants import CAPTIONS

BY_TOKEN, BY_GRADIENT = {"advantage.credit": "token"}, {"advantage.credit": "gradient"}
MIXED = "Expected all tensors to be on the same device"


@dataclass(frozen=True)
class Mutant:
    function: Callable[..., Any]
    line: str  # what stands in the function
    slip: str  # what stands there by mistake
    caught_by: str  # a pattern: what a GPU says, or the budget that is broken
    changes: Mapping[str, object] = field(default_factory=dict)  # of the recipe, where the line matters

    def apply(self, monkeypatch: pytest.MonkeyPatch) -> None:
        function = inspect.unwrap(self.function)
        source = dedent(inspect.getsource(function))
        assert source.count(self.line) == 1, f"{function.__qualname__} has changed: write the mutant anew"
        made: dict[str, Any] = {}
        source = source[source.index("def ") :].replace(self.line, self.slip)
        exec(compile(source, inspect.getfile(function), "exec"), function.__globals__, made)
        monkeypatch.setattr(function, "__code__", made[function.__name__].__code__)


MUTANTS = {
    "the mask of noise stays on the CPU": Mutant(
        context_noise.noisy_context, "< noise).to(context_T.device)", "< noise)", MIXED
    ),
    "noise is drawn on the GPU by a generator of the CPU": Mutant(
        context_noise.noisy_context,
        "(length,), generator=generator).to(context_T.device)",
        "(length,), generator=generator, device=context_T.device)",
        "Expected a 'cuda' device type for generator",
    ),
    "uniform numbers follow the dtype, not the device": Mutant(
        TokenDistribution.draw, "uniforms_NK.to(cumulative_NV)", "uniforms_NK.to(cumulative_NV.dtype)", MIXED
    ),
    "labels stay on the CPU": Mutant(chunks.GenerateChunk.run, "column.to(models.device)", "column", MIXED),
    "the mask of captions is made on the CPU": Mutant(
        block_stack.padded_attention, "device = valid_BP.device", "device = None", MIXED, CAPTIONS
    ),
    "the rotary table is made on the CPU": Mutant(
        transformer.rope_table,
        "torch.arange(num_frequencies, dtype=torch.float32, device=device)",
        "torch.arange(num_frequencies, dtype=torch.float32)",
        MIXED,
    ),
    "the cache of keys and values is on the CPU": Mutant(
        cached_decoding.KeyValueCache.append, "keys_BHQd.new_empty(", "torch.empty(", MIXED
    ),
    "an array is read from the GPU": Mutant(
        snapshot.as_array, "tensor.detach().cpu()", "tensor.detach()", "can't convert cuda:0"
    ),
    "a snapshot is handed out before it is here": Mutant(
        snapshot.WeightsBuffer.fill, "torch.cuda.synchronize()", "pass", "pinned memory was changed"
    ),
    "pinned memory is filled again while it is read": Mutant(
        incoming_weights.IncomingWeights.load_into,
        "torch.cuda.synchronize(self._device)",
        "pass",
        "pinned memory was changed",
    ),
    "the reward's network stays on the CPU": Mutant(loading.load_perceptual_metric, ".to(device)", "", MIXED),
    "the reward is added up on the CPU": Mutant(
        staged_lpips.staged_distance, "device=images_NCHW.device", "device=None", MIXED
    ),
    "a grid's shares follow the dtype, not the device": Mutant(
        token_grid.pool_to_grid, ".to(map_HW)", ".to(map_HW.dtype)", MIXED, BY_TOKEN
    ),
    "the codebook of prices stays on the CPU": Mutant(loading.load_codes, ".to(device)", "", MIXED, BY_GRADIENT),
    "the codebook's ids are made on the CPU": Mutant(
        code_credit.codebook_codes, ", device=device", "", MIXED, BY_GRADIENT
    ),
    "moments of a resumed optimizer stay on the CPU": Mutant(
        optimizer.load_optimizer_arrays, 'step_device if key == "step" else parameter.device', '"cpu"', MIXED
    ),
    "step counts of a resumed optimizer stay on the CPU": Mutant(
        optimizer.load_optimizer_arrays,
        'parameter.device if optimizer.defaults["fused"] else torch',
        "torch",
        MIXED,
    ),
    "autocast is that of the CPU": Mutant(
        machine.autocast, "device.type", '"cpu"', "bfloat16 was not used", {"compute.autocast": "bfloat16"}
    ),
    "pixels are floats on their way": Mutant(
        pixels.to_tensor,
        ".to(device).permute(0, 3, 1, 2)",
        ".float().to(device).permute(0, 3, 1, 2)",
        "bytes of pictures to the device in a ticket",
    ),
    "each token is looked at": Mutant(
        free_running._next_token,
        "    return TokenDistribution",
        "    assert logits_NV.isfinite().all()\n    return TokenDistribution",
        "waits in free-running pictures",
    ),
    "tokens are narrowed after their way off the GPU": Mutant(
        rollout_pipeline._int32,
        "tokens.to(torch.int32).cpu().numpy()",
        "tokens.cpu().to(torch.int32).numpy()",
        "bytes off the device in a ticket",
    ),
}
