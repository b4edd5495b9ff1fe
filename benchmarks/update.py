"""Seconds of one policy update: one row per group, compared with the published one row per sample.

Both forms take the same groups and give the same loss and gradient (asserted first). They differ only in the rows
through the model: B rows with G samples each, or B·G rows that repeat the context.

Shape letters: B groups, G samples per group, T image tokens, V codebook entries; N rows through the model, K
samples per row. Grouped: N = B, K = G. Repeated: N = B·G, K = 1.
"""

import argparse
import json
import os
import resource
import sys
from statistics import median
from time import perf_counter

import torch
from torch import nn

from common.config.algorithm import LearnerSection
from common.models.families import PolicyModule, build_policy
from common.models.llamagen.spec import TRANSFORMER_SIZES, LlamaGenPolicySpec
from common.models.llamagen.transformer import LlamaGenTransformer
from common.token_distribution import TokenDistribution
from learner.advantage import group_advantages
from learner.loss import ce_prior, policy_loss
from learner.optimizer import build_optimizer
from learner.rows import Rows
from learner.token_logprobs import token_logprobs

NUM_CLASSES = 1000
MAX_DIFFERENCE = 1e-4  # of loss and gradients, relative; float32 sums in a different order
SETTINGS = LearnerSection(num_steps=1)  # the paper's


def random_groups(policy: PolicyModule, codebook_size: int, num_tokens: int, num_groups: int, size: int) -> Rows:
    """Random tokens and rewards; behaviour log-probs so far from the policy's that some ratios are clipped."""
    label_B = torch.randint(NUM_CLASSES, (num_groups,))
    targets_BT = torch.randint(codebook_size, (num_groups, num_tokens))
    samples_BGT = torch.randint(codebook_size, (num_groups, size, num_tokens))
    with torch.no_grad():
        logits_BTV = policy({"label": label_B}, targets_BT[:, :-1])
        logprobs_BGT = (
            TokenDistribution().log_probabilities(logits_BTV, samples_BGT.transpose(1, 2)).transpose(1, 2)
        )
    behaviour_BGT = logprobs_BGT + 0.2 * torch.randn(logprobs_BGT.shape)
    advantages_BG = group_advantages(torch.randn(num_groups, size), SETTINGS.advantage_clip)
    return Rows({"label": label_B}, targets_BT[:, :-1], targets_BT, samples_BGT, behaviour_BGT, advantages_BG)


def backward(policy: PolicyModule, rows: Rows, micro_batch: int) -> float:
    """Forward, loss and backward, normalised by the rows of the whole update; returns the loss."""
    total = 0.0
    for start in range(0, len(rows), micro_batch):
        micro = rows[start : start + micro_batch]
        hidden_NTD = policy(micro.condition, micro.context_NT, head=False)
        logprobs = token_logprobs(
            policy.logits,
            hidden_NTD,
            micro.samples_NKT,
            micro.targets_NT,
            TokenDistribution(),
            SETTINGS.logit_rows,
        )
        assert micro.advantages_NKT is not None
        policy_N, _ = policy_loss(
            logprobs.samples_BGT, micro.behaviour_logprobs_NKT, micro.advantages_NKT, SETTINGS.clip_range
        )
        prior_N = ce_prior(logprobs.targets_BT)
        loss = (policy_N + SETTINGS.ce_weight * prior_N).sum() / len(rows)
        loss.backward()
        total += float(loss.detach())
    return total


def update(
    policy: PolicyModule, optimizer: torch.optim.Optimizer, rows: Rows, micro_batch: int
) -> tuple[float, float]:
    """One whole update; returns its seconds, and those of clipping and the optimizer alone."""
    start = perf_counter()
    optimizer.zero_grad(set_to_none=True)
    backward(policy, rows, micro_batch)
    learned = perf_counter()
    nn.utils.clip_grad_norm_(policy.parameters(), SETTINGS.max_grad_norm)
    optimizer.step()
    end = perf_counter()
    return end - start, end - learned


def difference(policy: PolicyModule, forms: dict[str, Rows], micro_batch: int) -> tuple[float, float]:
    """Relative difference of the losses, and of the gradients: the worst parameter's largest deviation over its
    largest gradient. Afterwards the policy has the last form's gradients.
    """
    losses, gradients = [], []
    for rows in forms.values():
        policy.zero_grad(set_to_none=True)
        losses.append(backward(policy, rows, micro_batch))
        gradients.append([parameter.grad for parameter in policy.parameters()])
    worst = max(float((one - other).abs().max() / one.abs().max()) for one, other in zip(*gradients, strict=True))
    return abs(losses[0] - losses[1]) / abs(losses[0]), worst


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    size = TRANSFORMER_SIZES[options.size]
    if options.layers:
        size = size.model_copy(update={"num_layers": options.layers})
    spec = LlamaGenPolicySpec(size=size, num_classes=NUM_CLASSES, checkpoint="none: random weights")
    policy = build_policy(spec, codebook_size=options.codebook_size, grid_size=options.grid_size).eval()
    assert isinstance(policy, LlamaGenTransformer)
    nn.init.normal_(policy.output.weight, std=0.02)  # LlamaGen's zero would leave the blocks without gradient
    grouped = random_groups(policy, options.codebook_size, policy.num_tokens, options.groups, options.samples)
    forms = {"grouped": grouped, "repeated": grouped.repeated()}
    micro_batch = options.micro_batch or options.groups * options.samples

    loss_difference, gradient_difference = difference(policy, forms, micro_batch)
    print(f"same update: loss differs by {loss_difference:.1e}, gradients by {gradient_difference:.1e} (relative)")
    assert max(loss_difference, gradient_difference) < MAX_DIFFERENCE
    optimizer = build_optimizer(policy, SETTINGS)
    optimizer.step()  # allocates its state before the timing starts

    timings: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    for _ in range(options.repeats):
        for form, rows in forms.items():
            timings[form].append(update(policy, optimizer, rows, micro_batch))
    result = {
        "benchmark": "update",
        **vars(options),
        "num_parameters": sum(p.numel() for p in policy.parameters()),
    }
    print(f"\n{'form':<10}{'rows':>6}{'median s':>10}{'min s':>8}{'of it optimizer s':>19}")
    for form, rows in forms.items():
        totals, optimizers = zip(*timings[form], strict=True)
        result |= {f"{form}_median_seconds": median(totals), f"{form}_min_seconds": min(totals)}
        print(f"{form:<10}{len(rows):>6}{median(totals):>10.2f}{min(totals):>8.2f}{median(optimizers):>19.2f}")
    ratio = result["repeated_median_seconds"] / result["grouped_median_seconds"]
    print(f"ratio of medians {ratio:.2f}\n")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    result |= {
        "ratio": ratio, "loss_difference": loss_difference, "gradient_difference": gradient_difference,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "load_average": os.getloadavg()[0], "torch": torch.__version__,
    }  # fmt: skip
    print(json.dumps(result))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.update", description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="PyTorch threads (default 1)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed updates of each form, taking turns (default 3)"
    )
    parser.add_argument("--groups", type=int, default=1, help="B: groups an update (default 1)")
    parser.add_argument("--samples", type=int, default=8, help="G: samples a group (default 8)")
    parser.add_argument("--micro-batch", type=int, default=0, help="rows through the model at once (default: all)")
    parser.add_argument("--size", choices=TRANSFORMER_SIZES, default="B", help="LlamaGen size (default B)")
    parser.add_argument("--layers", type=int, default=0, help="fewer blocks than the size has, for a quick look")
    parser.add_argument("--grid-size", type=int, default=16, help="tokens a side (default 16: 256 px)")
    parser.add_argument("--codebook-size", type=int, default=16384, help="V (default 16384)")
    return parser


if __name__ == "__main__":
    main()
