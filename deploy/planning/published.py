"""What the same recipe takes as the released VA-π scripts are written: a row a sample, metric features G times."""

from dataclasses import dataclass

from deploy.planning.counting import ActorWork


@dataclass(frozen=True)
class PublishedWork:
    """FLOPs of one source image and its G samples."""

    encode: int
    policy: int  # once, as here: the behaviour pass is not repeated
    head: int
    decode: int
    perceptual: int  # the source image's features once a sample
    forward: int  # a row a sample
    backward: int
    idle_kl: int  # a reference model's forward a row, which the class-conditional script runs and does not use


def published_work(actor: ActorWork, group_size: int) -> PublishedWork:
    row = actor.policy + actor.head
    return PublishedWork(
        encode=actor.encode,
        policy=actor.policy,
        head=actor.head,
        decode=actor.decode,
        perceptual=actor.perceptual * 2 * group_size // (group_size + 1),
        forward=group_size * row,
        backward=group_size * 2 * row,
        idle_kl=group_size * row,
    )
