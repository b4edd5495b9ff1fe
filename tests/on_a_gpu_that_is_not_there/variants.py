"""Recipes that differ in what they ask of a device."""

from common.config.algorithm import NO_REWARD

BFLOAT16 = {"compute.autocast": "bfloat16", "sampling.autocast": "bfloat16"}
CAPTIONS = {
    "policy.conditioning": "text",
    "policy.caption_dim": 12,
    "policy.caption_length": 6,
    "source": {"kind": "parquet", "path": "never read"},
}

VARIANTS: dict[str, dict] = {
    "credit by sample": {},
    "credit by token, of three terms": {
        "advantage.credit": "token",
        "advantage.mix": 0.3,
        "reward.l1": 0.5,
        "reward.python": {"tests.own_terms:darkness": 0.5},
    },
    "credit by gradient": {"advantage.credit": "gradient", "advantage.curvature": 0.1},
    "credit by gradient, on a global scale, beside a term of one's own": {
        "advantage.credit": "gradient",
        "advantage.scale": "global",
        "reward.gradient_batch_size": 3,
        "reward.python": {"tests.own_terms:brightness": 0.5},
    },
    "small pieces": {"reward.decode_batch_size": 4, "learner.logit_rows": 7, "learner.micro_batch_size": 1},
    "activation checkpointing": {"compute.activation_checkpointing": True, "learner.logit_rows": 50},
    "the prior alone": NO_REWARD,
    "a KL prior": {"learner.prior": "kl"},
    "old groups, corrected": {"learner.correction": "decoupled", "learner.ratio": "sequence"},
    "most likely tokens": {"group.top_k": 10, "group.top_p": 0.9, "group.temperature": 0.8},
    "noise and dropped conditions": {
        "context.noise_schedule": "linear",
        "context.noise": 0.9,
        "context.condition_drop": 0.5,
    },
    "the policy's own noise, of another strength for each sequence": {
        "context.noise": 0.9,
        "context.noise_per_sequence": True,
        "context.kernel": "self",
    },
    "noise without the token itself": {"context.noise": 0.9, "context.kernel": "other"},
    "straight through": {"learner.method": "ste"},
    "the decoder, held to where it began": {
        "learner.method": "decoder",
        "decoder": {"clean_weight": 1.0, "anchor_weight": 1.0},
        "learner.lr": 1e-6,  # AdamW makes steps of the rounding in biases that a norm takes away again
    },
    "straight through, drawn": {"learner.method": "ste", "ste.sample": "gumbel", "context.condition_drop": 0.5},
    "guided pictures": {"sampling.guidance_scale": 4.0, "sampling.top_k": 5, "sampling.top_p": 0.9},
    # AdamW's first step moves an adapter whose gradient is rounding as far as any other
    "adapters": {"learner.lora": {"rank": 3}, "learner.lr": 1e-4},
    "captions": {**CAPTIONS, "context.condition_drop": 0.5, "sampling.guidance_scale": 2.0},
    "LPIPS by token": {"perceptual": {"family": "lpips", "net": "squeeze"}, "advantage.credit": "token"},
    "shift-tolerant LPIPS on VGG-16": {"perceptual.net": "vgg", "group.size": 2},
}
"""In float32: a GPU's results are a CPU's."""

ROUGH: dict[str, dict] = {
    "bfloat16": BFLOAT16,
    "bfloat16 in the decoder, too": {**BFLOAT16, "reward.decode_dtype": "bfloat16"},
    "bfloat16 and credit by gradient": {
        **BFLOAT16,
        "advantage.credit": "gradient",
        "reward.decode_dtype": "bfloat16",
        "learner.logit_rows": 50,
    },
    "bfloat16 and captions": {**BFLOAT16, **CAPTIONS, "compute.activation_checkpointing": True},
    "bfloat16 and adapters": {**BFLOAT16, "learner.lora": {"rank": 3}},
    "the published profile": {**BFLOAT16, "profile": "published", "context.condition_drop": 0.1},
}
"""In bfloat16, for which CUDA's autocast has lists of its own, or with dropout, whose numbers a GPU draws."""
