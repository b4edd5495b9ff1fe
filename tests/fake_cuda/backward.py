"""Backward passes without PyTorch's engine, which would ask the driver for streams.

The same nodes are called in the engine's order, so that sums round alike. Not supported: hooks on tensors and
nodes, graphs of gradients.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any
from unittest import mock

import torch
from torch import Tensor

Edge = tuple[Any, int]  # a node of the graph, and which of its inputs

_TASKS = count(1 << 20)
_TIES = count()


def backward(root: Tensor, gradient: Tensor | None = None, *_: Any, **options: Any) -> None:
    """In the place of `Tensor.backward`."""
    assert not options.get("create_graph"), "no graphs of gradients"
    assert options.get("inputs") is None, "use torch.autograd.grad"
    walk({_edge(root): _ones(root) if gradient is None else gradient}, None)


def grad(outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor], *_: Any, **options: Any) -> Any:
    """In the place of `torch.autograd.grad`."""
    assert not options.get("create_graph"), "no graphs of gradients"
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    edges = [_edge(each) for each in ((inputs,) if isinstance(inputs, Tensor) else inputs)]
    given = options.get("grad_outputs") or [None] * len(outputs)
    roots = {_edge(out): _ones(out) if each is None else each for out, each in zip(outputs, given, strict=True)}
    wanted: dict[Edge, Tensor | None] = dict.fromkeys(edges)
    walk(roots, wanted)
    return tuple(wanted[edge] for edge in edges)


def walk(roots: dict[Edge, Tensor], wanted: dict[Edge, Tensor | None] | None) -> None:
    """Fill in the gradients at the `wanted` edges, or add to the leaves' `.grad` where it is None."""
    task, flow = next(_TASKS), Flow(roots)
    with torch.no_grad(), mock.patch.object(torch._C, "_current_graph_task_id", return_value=task):
        for node, gradients in flow:  # torch.utils.checkpoint makes a block again once per task
            if wanted is None and hasattr(node, "variable") and gradients:
                _accumulate(node.variable, gradients[0])
            elif wanted is not None:
                wanted.update(
                    {(node, index): each for index, each in gradients.items() if (node, index) in wanted}
                )
            flow.send(node, _called(node, gradients))


class Flow:
    """Gradients on their way: iterates over nodes that nobody will send anything any more, the youngest first."""

    def __init__(self, roots: dict[Edge, Tensor]):
        self._num_senders = _num_users(node for node, _ in roots)
        self._received: dict[Any, dict[int, Tensor]] = {}
        self._ready: list[Any] = []
        for edge, gradient in roots.items():
            self._add(edge, gradient)
        for node in {node for node, _ in roots if not self._num_senders[node]}:
            self._push(node)

    def __iter__(self) -> Iterator[tuple[Any, dict[int, Tensor]]]:
        """A node, and the gradients of its outputs by their index; the caller sends on what it makes of them."""
        while self._ready:
            node = heappop(self._ready)[-1]
            yield node, self._received.pop(node, {})

    def send(self, node: Any, gradients: Sequence[Tensor | None]) -> None:
        for (following, index), gradient in zip(node.next_functions, gradients, strict=True):
            if following is None:
                continue
            if gradient is not None:
                self._add((following, index), _fitted(node, gradient, following._input_metadata[index]))
            self._num_senders[following] -= 1
            if not self._num_senders[following]:
                self._push(following)

    def _add(self, edge: Edge, gradient: Tensor) -> None:
        node, index = edge
        slots = self._received.setdefault(node, {})
        slots[index] = slots[index] + gradient if index in slots else gradient

    def _push(self, node: Any) -> None:
        heappush(self._ready, (-node._sequence_nr(), next(_TIES), node))  # leaves count as the youngest


def _called(node: Any, gradients: dict[int, Tensor]) -> Sequence[Tensor | None]:
    num_next = len(node.next_functions)
    if not gradients or not num_next:
        return [None] * num_next
    call = node if callable(node) else node.apply  # of a torch.autograd.Function
    out = call(*(gradients.get(index) for index in range(len(node._input_metadata))))
    return out if isinstance(out, tuple) else (out,)


def _fitted(node: Any, gradient: Tensor, metadata: Any) -> Tensor:
    if gradient.device.type != metadata.device.type:
        raise RuntimeError(f"{node} gives a gradient on {gradient.device}, and expected is {metadata.device}")
    if gradient.shape != metadata.shape:
        gradient = gradient.sum_to_size(metadata.shape)
    return gradient if gradient.dtype == metadata.dtype else gradient.to(metadata.dtype)


def _accumulate(leaf: Tensor, gradient: Tensor) -> None:
    if leaf.grad is None:
        leaf.grad = gradient.clone()  # another node may have been given the same
    else:
        leaf.grad += gradient


def _num_users(roots: Iterable[Any]) -> Counter[Any]:
    users: Counter[Any] = Counter()
    todo = list(dict.fromkeys(roots))
    seen = set(todo)
    while todo:
        for following, _ in todo.pop().next_functions:
            if following is None:
                continue
            users[following] += 1
            if following not in seen:
                seen.add(following)
                todo.append(following)
    return users


def _edge(tensor: Tensor) -> Edge:
    edge = torch.autograd.graph.get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _ones(root: Tensor) -> Tensor:
    assert root.numel() == 1, "grad can be implicitly created only for scalar outputs"
    return torch.ones_like(root)
