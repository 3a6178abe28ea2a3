"""Runs recorded calls on tensors of the backend, one after the other."""

from collections.abc import Callable, Mapping

import keras

from parity.frameworks.keras_capture.calls import Call, Nest, Ref, Tensor, flatten, replace_leaves
from parity.frameworks.keras_capture.exact import exact_formula, rounds_attention
from parity.frameworks.keras_capture.leaves import Holdings
from parity.frameworks.program import ValueId

# A value and what was computed for it -> what goes on in its place.
Visit = Callable[[ValueId, Tensor], Tensor]


class Execution:
    """One run of recorded calls.

    Attributes:
        values: What goes on, by value.
    """

    def __init__(
        self,
        holdings: Holdings,
        *,
        dtype: str | None,
        training: bool,
        uniforms: Mapping[str, Tensor],
    ) -> None:
        """Prepare a run.

        Args:
            holdings: The layers and variables to run with.
            dtype: What floats are cast to and computed in; None leaves each as it is.
            training: Whether layers behave as in training.
            uniforms: See `Program.run`.
        """
        self.values: dict[ValueId, Tensor] = {}
        self._holdings, self._dtype = holdings, dtype
        self._training, self._uniforms = training, uniforms

    def run(self, calls: tuple[Call, ...], inputs: Mapping[ValueId, Tensor], visit: Visit) -> None:
        """Run the calls in their order.

        Args:
            calls: All of a recording.
            inputs: The values that are given.
            visit: Sees each value as it comes to be, the inputs first.
        """
        for value, tensor in inputs.items():
            self.values[value] = visit(value, tensor)
        for call in calls:
            made = [leaf for leaf in flatten(self._result(call)) if keras.ops.is_tensor(leaf)]
            for value, tensor in zip(call.outputs, made, strict=True):
                self.values[value] = visit(value, tensor)

    def _result(self, call: Call) -> Nest:
        if call.variable is not None:
            variable = self._holdings.free[call.variable]
            return keras.ops.convert_to_tensor(variable)
        if call.array is not None:
            return keras.ops.convert_to_tensor(call.array, dtype=self._cast(str(call.array.dtype)))
        arguments, keywords = replace_leaves((call.arguments, dict(call.keywords)), self._tensor)
        if call.description.kind == "dropout":
            return self._dropped(call, arguments[0])
        exact = exact_formula(call.description) if self._dtype == "float64" else None
        if exact is not None:
            return exact(arguments[0])
        if call.description.kind == "cast":
            return keras.ops.cast(arguments[0], self._cast(call.operation.dtype))
        if call.leaf is None:
            return call.operation.call(*arguments, **keywords)
        if call.training is not None:
            keywords["training"] = self._training and call.training
        layer = self._holdings.leaves[call.leaf].layer
        if self._dtype == "float64" and rounds_attention(call.description):
            told = keywords.pop("return_attention_scores", False)
            results = layer(*arguments, return_attention_scores=True, **keywords)
            return results if told else results[0]
        return layer(*arguments, **keywords)

    def _tensor(self, leaf: Nest) -> Nest:
        return self.values[leaf.value] if isinstance(leaf, Ref) else leaf

    def _cast(self, dtype: object) -> str:
        name = keras.backend.standardize_dtype(dtype)
        return self._dtype if self._dtype is not None and "float" in name else name

    def _dropped(self, call: Call, operand: Tensor) -> Tensor:
        uniforms = self._uniforms.get(call.name)
        if not (self._training and call.training) or uniforms is None:
            return operand
        for axis in call.description.attributes["shared_axes"]:
            uniforms = keras.ops.take(uniforms, [0], axis=axis)
        rate = call.description.attributes["rate"]
        scaled = operand / keras.ops.convert_to_tensor(1 - rate, dtype=operand.dtype)
        return keras.ops.where(uniforms >= rate, scaled, keras.ops.zeros_like(operand))
