"""The chunk queue: every chunk is done once, over the loss of actors."""

from hypothesis import given
from hypothesis import strategies as st

from actors.evaluation.chunk_queue import ChunkQueue
from actors.evaluation.chunks import GenerateChunk

CHUNKS = [GenerateChunk((index,), seed=0, temperature=1.0) for index in range(6)]


def test_an_actor_has_one_chunk_at_a_time():
    queue = ChunkQueue(CHUNKS)
    assert queue.take("one") == (0, CHUNKS[0])
    assert queue.take("one") is None
    assert queue.take("two") == (1, CHUNKS[1])
    queue.finish(0)
    assert queue.take("one") == (2, CHUNKS[2])


def test_what_a_lost_actor_had_goes_to_the_next_one():
    queue = ChunkQueue(CHUNKS[:2])
    queue.take("one")
    queue.give_back("one")
    queue.give_back("one")  # lost twice is lost once
    assert queue.take("two") == (0, CHUNKS[0])
    queue.finish(0)
    assert not queue.is_done
    assert queue.take("two") == (1, CHUNKS[1])
    queue.finish(1)
    assert queue.is_done
    assert queue.take("two") is None


def test_an_actor_is_free_for_another_chunk_while_judges_have_its_last():
    queue = ChunkQueue(CHUNKS[:2])
    queue.take("one")
    queue.pass_on(0)
    assert queue.take("one") == (1, CHUNKS[1])
    queue.pass_on(1)
    queue.give_back("one")  # what it has made outlives it
    assert queue.take("two") is None
    queue.finish(1)
    assert not queue.is_done
    queue.redo(0)  # its pictures were lost
    assert queue.take("two") == (0, CHUNKS[0])
    queue.pass_on(0)
    queue.finish(0)
    assert queue.is_done


def test_what_judges_lose_after_it_was_given_up_is_not_done_again():
    queue = ChunkQueue(CHUNKS)
    queue.take("one")
    queue.pass_on(0)
    queue.give_up()
    assert not queue.is_done
    queue.redo(0)
    assert queue.is_done


def test_once_it_is_given_up_nothing_is_taken_and_what_runs_ends():
    queue = ChunkQueue(CHUNKS)
    for actor in ("one", "two", "three"):
        queue.take(actor)
    queue.give_back("one")
    queue.give_up()
    queue.give_back("two")
    assert queue.take("one") is None
    assert not queue.is_done
    queue.finish(2)
    assert queue.is_done


@given(st.lists(st.tuples(st.sampled_from(["take", "finish", "lose"]), st.sampled_from("abc")), max_size=60))
def test_every_chunk_is_done_once(moves):
    queue, running, done = ChunkQueue(CHUNKS), {}, []
    to_the_end = [("lose", "a"), ("lose", "b"), ("lose", "c"), *[("take", "a"), ("finish", "a")] * len(CHUNKS)]
    for move, actor in moves + to_the_end:
        if move == "take" and (taken := queue.take(actor)):
            running[actor] = taken[0]
        elif move == "finish" and actor in running:
            done.append(running.pop(actor))
            queue.finish(done[-1])
        elif move == "lose":
            running.pop(actor, None)
            queue.give_back(actor)
    assert sorted(done) == list(range(len(CHUNKS)))
    assert queue.is_done
