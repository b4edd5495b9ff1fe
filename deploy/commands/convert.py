"""`convert SOURCE TARGET`: converts weights between kinds of files."""

import argparse

HELP = "convert weights between the published layouts and safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Convert a weights file between the published .pt layouts and safetensors, bit for bit unless --dtype "
        "casts. Every key and shape is checked against a model: a published LlamaGen generator or tokenizer, a "
        "Janus-Pro, or one of a recipe. A Janus-Pro is written as .bin (DeepSeek's names) or .safetensors (those "
        "of transformers), or as shards beside an index of either. Only the weights are kept, not an optimizer or "
        "a moving average stored with them. Adapters (learner.lora) are merged into the weights that they were "
        "trained beside."
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="a .pt, .pth or .safetensors file, or a checkpoint folder of a run"
    )
    parser.add_argument("target", metavar="TARGET", help="the new file; its suffix sets the kind")
    add = parser.add_argument
    add(
        "--layout",
        choices=("model", "module", "state_dict", "bare", "deepseek", "transformers"),
        help="where a .pt TARGET keeps its state dict (default model, which the published samplers read; bare is "
        "what they read with --from-fsdp); of Janus-Pro, deepseek or transformers, which TARGET's ending says too",
    )
    add(
        "--dtype",
        choices=("keep", "float32", "bfloat16", "float16"),
        default="keep",
        help="cast to this dtype (default keep: as stored)",
    )
    add("--recipe", metavar="RECIPE", help="check against the models of this recipe, not the published sizes")
    add("--what", choices=("policy", "tokenizer"), help="the model that SOURCE must be (default: either)")
    add(
        "--original",
        metavar="PATH",
        help="a published Janus-Pro in TARGET's layout: what SOURCE lacks (the tokenizer of a run's checkpoint, "
        "the parts that understand images) is taken from it",
    )
    add("--shard-gb", type=float, default=5.0, metavar="N", help="gigabytes of a shard at most (default 5)")
    add("--overwrite", action="store_true", help="replace an existing TARGET")


def run(arguments: argparse.Namespace) -> int:
    from common.config.load import load_recipe
    from common.paths import resolve
    from deploy.weights.conversion import convert

    target = resolve(arguments.target)
    converted = convert(
        arguments.source,
        target,
        layout=arguments.layout,
        dtype=arguments.dtype,
        recipe=load_recipe(arguments.recipe) if arguments.recipe else None,
        what=arguments.what,
        original=arguments.original,
        shard_gb=arguments.shard_gb,
        overwrite=arguments.overwrite,
    )
    print(f"{converted.model}: {converted.num_tensors} tensors, {converted.num_numbers:,} numbers")
    for does, names in (("left out", converted.left_out), ("filled with zeros", converted.filled)):
        if names:
            print(f"{does}: {', '.join(names)}")
    print(f"wrote {target} ({', '.join(converted.dtypes)}, {converted.num_bytes / 1e6:,.1f} MB)")
    return 0
