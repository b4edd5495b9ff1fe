"""Peak memory of the learner's loss: logits for some rows at a time, compared with all at once.

Measures the vocabulary head, the log-probabilities, the loss and their backward for a LlamaGen-B in float32 on
random hidden states; the transformer's blocks are the same in both and left out. Each form runs in its own
process, which reports the increase of its peak resident memory.

Letters: B groups, G samples per group, T image tokens, D width, V codebook entries.
"""

import argparse
import json
import resource
import subprocess
import sys
from time import perf_counter

import torch

from common.models.llamagen.spec import TRANSFORMER_SIZES
from learner.loss import ce_prior, policy_loss
from learner.token_logprobs import token_logprobs

V, G = 16384, 8
UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


def measure(groups: int, tokens: int, rows_at_once: int) -> dict[str, float]:
    """Peak bytes above those of the inputs, seconds, and the loss, for comparison."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    D = TRANSFORMER_SIZES["B"].dim
    head = torch.nn.Linear(D, V, bias=False)
    hidden_BTD = torch.randn(groups, tokens, D, requires_grad=True)
    samples_BGT, targets_BT = torch.randint(V, (groups, G, tokens)), torch.randint(V, (groups, tokens))
    advantages_BG = torch.randn(groups, G)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    start = perf_counter()
    logprobs = token_logprobs(head, hidden_BTD, samples_BGT, targets_BT, 1.0, rows_at_once)
    policy_B, _ = policy_loss(logprobs.samples_BGT, logprobs.samples_BGT.detach(), advantages_BG, 0.2)
    loss = (policy_B + 0.1 * ce_prior(logprobs.targets_BT)).mean()
    loss.backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    return {"peak_bytes": peak - before, "seconds": perf_counter() - start, "loss": loss.item()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loss_memory", description=__doc__.split("\n")[0])
    parser.add_argument("--groups", type=int, default=8, help="B: groups in a micro-batch (default 8)")
    parser.add_argument("--tokens", type=int, default=576, help="T (default 576: 384 px)")
    parser.add_argument("--rows", type=int, default=512, help="learner.logit_rows when chunked (default 512)")
    parser.add_argument("--only", type=int, default=0, help=argparse.SUPPRESS)  # a child's own rows
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.groups, options.tokens, options.only)))
        return
    forms = {"whole": options.groups * options.tokens, "chunked": options.rows}
    results = {}
    print(f"{'form':<9}{'rows at once':>13}{'peak MB':>10}{'seconds':>9}")
    for form, rows in forms.items():
        sizes = ["--groups", str(options.groups), "--tokens", str(options.tokens), "--only", str(rows)]
        command = [sys.executable, "-m", "benchmarks.loss_memory", *sizes]
        results[form] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{form:<9}{rows:>13}{results[form]['peak_bytes'] / 1e6:>10.0f}{results[form]['seconds']:>9.1f}")
    whole, chunked = results["whole"], results["chunked"]
    assert abs(whole["loss"] - chunked["loss"]) < 1e-5 * abs(whole["loss"]), "the two forms differ"
    ratio = chunked["peak_bytes"] / whole["peak_bytes"]
    seconds_ratio = chunked["seconds"] / whole["seconds"]
    print(f"chunked over whole: memory {ratio:.3f}, seconds {seconds_ratio:.2f}\n")
    print(json.dumps({"benchmark": "loss_memory", **vars(options), **results, "memory_ratio": ratio}))


if __name__ == "__main__":
    main()
