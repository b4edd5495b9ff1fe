"""Everything around the algorithm: processes, buffer, run folder, metrics, pretraining."""

from typing import Literal

from pydantic import Field

from common.config.base import Section


class RunSection(Section):
    """The run and its folder."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run's name; the folder is DIR/NAME."""
    dir: str = "runs"
    """The parent of run folders. On a cluster, use a folder that outlives the job."""


class ComputeSection(Section):
    """How every process computes. Changing these keys changes the last bits of the results."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto uses a GPU if the process sees one."""
    num_threads: int = Field(default=1, gt=0)
    """PyTorch threads of each process."""
    autocast: Literal["none", "bfloat16"] = "none"
    """Autocast of the policy's forward; log-probabilities are float32 in both cases."""
    activation_checkpointing: bool = False
    """The learner recomputes each transformer block in the backward pass instead of keeping its activations: less
    memory for one more forward. Does not change the results."""
    compile: bool = False
    """torch.compile of the policy's transformer blocks, in actors and learner, and of the decoder that samples are
    scored with; held-out scores and pictures do without, and free-running sampling has a key of its own. The first
    forward of each batch size takes longer. Needs a C++ compiler and, on a GPU, Triton."""


class AutoscaleSection(Section):
    """The driver changes the number of these processes by itself, by what the learner waits for; events.jsonl
    records each decision."""

    min: int = Field(default=1, gt=0)
    """Fewest of them."""
    max: int = Field(gt=0)
    """Most of them."""
    patience: int = Field(default=3, gt=0)
    """Consecutive steps that must suggest the same change."""


class ActorsSection(Section):
    """The reward actors."""

    count: int = Field(default=1, ge=0)
    """Number of reward actors; 0 where `placement: colocated` has the learner's ranks alone roll out."""
    autoscale: AutoscaleSection | None = None
    """Let the driver change `count` between a minimum and a maximum; null leaves it to you."""
    images_per_ticket: int = Field(default=8, gt=0)
    """Source images per ticket, the unit of work. Affects the last bits of the results, unlike `count`."""
    tickets_in_flight: int = Field(default=2, gt=0)
    """Tickets that an actor holds: it works on one, and the others wait so that it never idles."""
    num_read_threads: int = Field(default=4, gt=0)
    """Threads that read and decode a ticket's images. Does not change the results."""
    num_cpus: float = Field(default=1, ge=0)
    """CPUs an actor reserves in Ray."""
    num_gpus: float = Field(default=0, ge=0)
    """GPUs, or a fraction of one, that an actor reserves in Ray."""
    label_selector: dict[str, str] = Field(default={})
    """Node labels that an actor's node must have, such as {ray.io/accelerator-type: L4}."""
    max_restarts: int = Field(default=10, ge=0)
    """Number of dead actors to replace before the run gives up."""
    ticket_timeout_seconds: float = Field(default=600.0, gt=0)
    """An actor that takes longer over a ticket loses it and is replaced."""


class BufferSection(Section):
    """The buffer of scored groups between actors and learner."""

    max_staleness: int = Field(default=0, ge=0)
    """Most policy versions between sampling a group and learning from it. 0 is strictly on-policy."""
    max_bytes: int = Field(default=1 << 30, gt=0)
    """Most bytes of groups in the object store; must hold (max_staleness + 1) · images_per_step groups."""


class CheckpointSection(Section):
    """Resumable state in the run folder."""

    every: int = Field(default=50, gt=0)
    """Steps between checkpoints; there is always one after the last step."""
    keep: int = Field(default=2, gt=0)
    """Number of newest checkpoints to keep."""
    url: str | None = None
    """Copy each checkpoint to URL/NAME/step-…; any URL that fsspec supports, such as s3://bucket/runs. A run whose
    folder has no checkpoint resumes from there."""


class RecordSection(Section):
    """What a run keeps beside its numbers."""

    groups: bool = False
    """Keep the groups that each step learned from, in groups/ of the run folder, for `replay`."""


class MetricsSection(Section):
    """The Prometheus endpoint of the driver."""

    host: str = "127.0.0.1"
    """Interface to listen on; loopback by default."""
    port: int = Field(default=9464, ge=0, le=65535)
    """Port; 0 takes a free one. The address is printed and kept in the run folder."""


class LogSection(Section):
    """Log lines of driver, actors and learner ranks, on the driver's standard error."""

    format: Literal["text", "json"] = "text"
    """text for people; json for one object per line, with time, level, role, step, logger and message."""


class RaySection(Section):
    """The local Ray that is started if no cluster is given."""

    object_store_bytes: int = Field(default=1 << 30, ge=78643200)
    """Size of its object store."""
    placement_timeout_seconds: float = Field(default=300.0, gt=0)
    """How long to wait for the cluster to place the processes."""


class PretrainStage(Section):
    """A supervised training."""

    num_steps: int = Field(gt=0)
    """Optimizer steps."""
    batch_size: int = Field(default=64, gt=0)
    """Images per step."""
    lr: float = Field(gt=0)
    """Peak learning rate, reached after a linear warm-up of 2 % of the steps."""
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    """After the warm-up: a cosine down to a tenth; or the peak rate to the end, as in LlamaGen's training; or
    warmup-stable-decay (arXiv 2404.06395): the peak rate, and in the last fifth a cosine down to a tenth."""
    shift: int = Field(default=0, ge=0)
    """Each image is moved by up to this many pixels along each axis, its edges repeated; under wsd not while the
    rate decays, so that the images as they are come last."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout (policy only)."""
    condition_drop: float = Field(default=0.1, ge=0, lt=1)
    """Probability that a condition is dropped, for classifier-free guidance (policy only)."""
    initial_weights: str = ""
    """Weights file to start from; random weights without one."""


class PretrainSection(Section):
    """From-scratch training of small models on the recipe's source."""

    tokenizer: PretrainStage
    """VQ tokenizer."""
    policy: PretrainStage
    """Next-token training of the generator."""
    classifier: PretrainStage | None = None
    """Image classifier for the scores."""
    clip: PretrainStage | None = None
    """A small CLIP (some 800 thousand parameters) of the pictures and their captions, or class names, as a judge:
    `reward_models.clip`. Byte pairs and activation are those of `reward_models`."""
    checkpoint_every: int = Field(default=200, gt=0)
    """Steps between resumable states."""
