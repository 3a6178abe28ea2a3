"""The torch model of a plan, as PyTorch users write them: modules, `nn.Sequential`, functionals.

Source of every form: torch 2.13.0, the class or function that is called.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from parity.frameworks.pairs.plan import (
    INPUT,
    Array,
    Built,
    Node,
    Plan,
    group_inputs,
    is_chain,
)
from parity.frameworks.pairs.torch_layers import PARTS, Part
from parity.spec.model_spec import ModelSpec

# Kind -> what its attribute is called; functions of tensors are none.
_WORDS = {
    "conv": ("conv", "convolution", "cnv"),
    "conv_transpose": ("up", "deconv", "up"),
    "dense": ("fc", "linear", "proj"),
    "batch_norm": ("bn", "norm", "bn"),
    "layer_norm": ("ln", "norm", "ln"),
    "group_norm": ("gn", "norm", "gn"),
    "embedding": ("emb", "embedding", "tok"),
    "position": ("pos", "positions", "pos_emb"),
    "attention": ("attn", "attention", "mha"),
    "activation": ("act", "activation", "nonlin"),
    "dropout": ("drop", "dropout", "do"),
    "max_pool": ("pool", "maxpool", "mp"),
    "avg_pool": ("pool", "avgpool", "ap"),
    "lstm": ("lstm", "rnn", "encoder"),
    "gru": ("gru", "rnn", "encoder"),
}
_GROUPS = ("block{}", "layer{}", "stage_{}")


class Graph(nn.Module):
    """Nodes, or submodules of them, called in order; what is used later is kept."""

    def __init__(self, inputs: Sequence[str], output: str) -> None:
        super().__init__()
        self.inputs, self.output = tuple(inputs), output
        self.calls: list[tuple[str, tuple[str, ...], list[Callable[..., Any] | str]]] = []

    def append(
        self, value: str, operands: tuple[str, ...], parts: Sequence[tuple[str, Part]]
    ) -> None:
        """Add the parts that make a value, of which the first takes the operands.

        Args:
            value: What the last part returns.
            operands: Values made before, or inputs.
            parts: With the attribute that holds each module.
        """
        steps: list[Callable[..., Any] | str] = []
        for name, part in parts:
            if isinstance(part.call, nn.Module):
                self.add_module(name, part.call)
                steps.append(name)
            else:
                steps.append(part.call)
        self.calls.append((value, operands, steps))

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the output."""
        values: dict[str, Any] = dict(zip(self.inputs, tensors, strict=True))
        for value, operands, steps in self.calls:
            results: Any = tuple(values[name] for name in operands)
            for step in steps:
                call = getattr(self, step) if isinstance(step, str) else step
                results = (call(*results),)
            values[value] = results[0]
        result: Tensor = values[self.output]
        return result


def build_torch(plan: Plan, *, dtype: str = "float32", fixed_dropout: bool = False) -> Built:
    """Return the model of a plan, with its weights, in evaluation mode.

    Args:
        plan: Of nodes, or of a twin.
        dtype: `float32` or `float64`.
        fixed_dropout: Whether dropouts keep what the plan's seed says, as measuring needs.
    """
    if plan.spec is not None:
        return _build_twin(plan.spec, plan, dtype=dtype)
    paths: dict[str, str] = {}
    parts_of = {
        node.name: PARTS[node.kind](node, plan, fixed_dropout=fixed_dropout) for node in plan.nodes
    }
    model = _as_sequential(plan, parts_of, paths) or _as_graph(plan, parts_of, paths)
    model = model.to(getattr(torch, dtype))
    slots = _fill(model, plan, parts_of)
    return Built(model=model.eval(), paths=paths, slots=slots)


def _as_graph(plan: Plan, parts_of: dict[str, list[Part]], paths: dict[str, str]) -> nn.Module:
    naming = _Naming(plan)
    whole = Graph([INPUT], plan.nodes[-1].name)
    for nodes in plan.groups():
        if not nodes[0].group:
            paths |= _append(whole, nodes, parts_of, naming, prefix="")
            continue
        attribute = naming.group()
        inner = _submodule(nodes, parts_of, plan, prefix=f"{attribute}.", paths=paths)
        whole.append(nodes[-1].name, group_inputs(nodes), [(attribute, Part(call=inner))])
    return whole


class _Naming:
    """Attribute names, drawn once for a plan: words of its kind and a number from the second on."""

    def __init__(self, plan: Plan) -> None:
        self._choice = plan.seed % len(_GROUPS)
        self._counts: dict[str, itertools.count[int]] = {}
        self._groups = itertools.count(1)

    def layer(self, kind: str) -> str:
        words = _WORDS.get(kind)
        word = words[self._choice] if words else kind
        number = next(self._counts.setdefault(word, itertools.count(1)))
        return f"{word}{number}"

    def group(self) -> str:
        return _GROUPS[self._choice].format(next(self._groups))


def _append(
    graph: Graph,
    nodes: Sequence[Node],
    parts_of: dict[str, list[Part]],
    naming: _Naming,
    *,
    prefix: str,
) -> dict[str, str]:
    paths = {}
    for node in nodes:
        named = []
        for part in parts_of[node.name]:
            name = naming.layer(part.word or node.kind) if isinstance(part.call, nn.Module) else ""
            named.append((name, part))
            if name and (part.is_main or node.name not in paths):
                paths[node.name] = f"{prefix}{name}"
        paths.setdefault(node.name, f"{prefix.removesuffix('.')}/")
        graph.append(node.name, node.inputs, named)
    return paths


def _submodule(
    nodes: tuple[Node, ...],
    parts_of: dict[str, list[Part]],
    plan: Plan,
    *,
    prefix: str,
    paths: dict[str, str],
) -> nn.Module:
    parts = [part for node in nodes for part in parts_of[node.name]]
    are_modules = all(isinstance(part.call, nn.Module) for part in parts)
    if plan.forms["torch"] == "sequential" and is_chain(nodes) and are_modules:
        paths |= _numbered(nodes, parts_of, prefix=prefix)
        return nn.Sequential(*[part.call for part in parts])
    inner = Graph(group_inputs(nodes), nodes[-1].name)
    paths |= _append(inner, nodes, parts_of, _Naming(plan), prefix=prefix)
    return inner


def _numbered(
    nodes: Sequence[Node], parts_of: dict[str, list[Part]], *, prefix: str
) -> dict[str, str]:
    paths: dict[str, str] = {}
    numbers = itertools.count()
    for node in nodes:
        for part in parts_of[node.name]:
            number = next(numbers)
            if part.is_main or node.name not in paths:
                paths[node.name] = f"{prefix}{number}"
    return paths


def _as_sequential(
    plan: Plan, parts_of: dict[str, list[Part]], paths: dict[str, str]
) -> nn.Module | None:
    """Return the whole model as an `nn.Sequential` where it can be one and is to be."""
    parts = [part for node in plan.nodes for part in parts_of[node.name]]
    are_modules = all(isinstance(part.call, nn.Module) for part in parts)
    if plan.forms["torch"] != "sequential" or not is_chain(plan.nodes) or not are_modules:
        return None
    paths |= _numbered(plan.nodes, parts_of, prefix="")
    return nn.Sequential(*[part.call for part in parts])


def _fill(model: nn.Module, plan: Plan, parts_of: dict[str, list[Part]]) -> dict[str, str]:
    """Give a model the plan's weights, and return their names by the model's own."""
    names = {id(array): name for name, array in _arrays(model).items()}
    slots = {}
    for node, parts in parts_of.items():
        for part in parts:
            if not isinstance(part.call, nn.Module):
                continue
            held = _arrays(part.call)
            for own, slot in part.slots.items():
                slots[names[id(held[own])]] = f"{node}.{slot}"
                with torch.no_grad():
                    held[own].copy_(torch.as_tensor(plan.weights[f"{node}.{slot}"]))
    return slots


def _arrays(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _build_twin(spec: ModelSpec, plan: Plan, *, dtype: str) -> Built:
    import models_torch

    model = models_torch.build_model(spec).to(getattr(torch, dtype))
    state = {name: torch.as_tensor(array) for name, array in plan.weights.items()}
    model.load_state_dict(state, strict=False)
    layers = [name.rpartition(".")[0] for name in plan.weights]
    return Built(
        model=model.eval(),
        paths={name: name for name in layers},
        slots={name: name for name in plan.weights},
    )


def torch_statistics(plan: Plan, inputs: Array) -> dict[str, Array]:
    """Return running statistics as the plan's inputs have them, by name in its weights.

    Each batch norm is measured where the ones before it normalize by their batch.
    """
    built = build_torch(plan, dtype="float64")
    model = built.model
    found: dict[str, Array] = {}

    def measure(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, operands: tuple[Tensor, ...]) -> None:
            del module
            axes = [axis for axis in range(operands[0].ndim) if axis != 1]
            mean = operands[0].mean(axes)
            variance = operands[0].var(axes, unbiased=False)
            found[built.slots[f"{path}.running_mean"]] = mean.detach().numpy()
            # A channel that is constant on these inputs keeps a variance that can be divided by.
            found[built.slots[f"{path}.running_var"]] = variance.clamp(min=1e-3).detach().numpy()

        return hook

    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(measure(path))
    tensor = torch.as_tensor(inputs)
    with torch.no_grad():
        model.train()(tensor.double() if tensor.is_floating_point() else tensor)
    return found
