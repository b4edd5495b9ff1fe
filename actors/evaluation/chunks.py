"""The work of an evaluation, in chunks that any actor can do."""

from actors.evaluation.generate_chunk import GenerateChunk
from actors.evaluation.held_out_chunk import HeldOutChunk

EvaluationChunk = GenerateChunk | HeldOutChunk
