"""Attention forward and backward: scaled dot products, and several heads of them."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen

MaskMeaning = Literal["attend", "ignore", "add"]
PaddingMeaning = Literal["attend", "ignore"]
FullyMasked = Literal["nan", "zeros", "uniform", "uniform_added", "uniform_ones"]
Arrays = dict[str, Array]

_MASK_MEANINGS: tuple[str, ...] = ("attend", "ignore", "add")
_FULLY_MASKED: tuple[str, ...] = ("nan", "zeros", "uniform", "uniform_added", "uniform_ones")


def scaled_dot_product_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    mask: ArrayLike | None,
    *,
    scale: float,
    mask_meaning: MaskMeaning,
    fully_masked: FullyMasked,
) -> tuple[Array, Array]:
    """Return `(outputs, shares)`, `(..., t, v)` and `(..., t, s)`.

    `shares = softmax(scale * query key^T + mask)` over `s` and `outputs = shares value` (Vaswani et
    al. 2017, equation 1, with `scale = 1 / sqrt(d)`).

    Args:
        query: `(..., t, d)`. Torch keeps the heads before `t`; Keras' function takes `(n, t, heads,
            d)`.
        key: `(..., s, d)`.
        value: `(..., s, v)`.
        mask: Broadcast to `(..., t, s)`, or None.
        scale: Factor of the dot products.
        mask_meaning: What a mask says. `attend`: keys that are True, or not 0, take part (Keras'
            layer and function, and torch's function). `ignore`: keys that are True do not (torch's
            layer). `add`: a mask of floats is added to the scaled products, minus infinity leaves
            a key out (torch's layer and function; Keras takes every mask for booleans).
        fully_masked: What a query whose keys are all left out gets. `nan` (torch's layer, asked for
            its weights); `zeros` (torch's function and its layer without weights, and Keras' layer
            asked for its scores); `uniform`, the mean of all values, whose products have no
            gradient (Keras' function and layer on tensorflow and jax, where a large negative number
            replaces the products); `uniform_added`, the same with the gradient of an unmasked
            softmax (torch's function without a fused kernel, where that number is added);
            `uniform_ones`, the same forward, while backward every share of the query is 1 (Keras'
            function on torch, on processors: torch's fused kernel keeps only the logarithm of the
            sum of exponentials, beside that number the logarithm of the count of keys is rounded
            away, and the backward takes the shares from it again).

    Raises:
        SpecError: If shapes do not fit or an argument is unknown.

    Source: torch 2.13.0, nn.functional.scaled_dot_product_attention; keras 3.15.1,
        ops.dot_product_attention, Softmax.call and backend/torch/nn.py, _get_large_negative.
    """
    query, key, value = _check_shapes(query, key, value)
    products = scale * (query @ key.swapaxes(-1, -2))
    added = _additive_mask(mask, products.shape, mask_meaning)
    shares = _softmax(products + added, fully_masked)
    return shares @ value, shares


def scaled_dot_product_attention_backward(
    d_outputs: ArrayLike,
    d_shares: ArrayLike | None,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    mask: ArrayLike | None,
    *,
    scale: float,
    mask_meaning: MaskMeaning,
    fully_masked: FullyMasked,
) -> tuple[Array, Array, Array]:
    """Return the gradients of `scaled_dot_product_attention`: `(d_query, d_key, d_value)`.

    With `p` the shares and `dp = dy value^T + d_shares`: `d_products = p (dp - sum_s dp p)`,
    `d_query = scale d_products key`, `d_key = scale d_products^T query`, `d_value = p^T dy`; with
    `uniform_ones` the sum alone has the forward's shares.
    """
    query, key, value = _check_shapes(query, key, value)
    d_outputs = widen(d_outputs)
    _, shares = scaled_dot_product_attention(
        query, key, value, mask, scale=scale, mask_meaning=mask_meaning, fully_masked=fully_masked
    )
    d_probabilities = d_outputs @ value.swapaxes(-1, -2)
    if d_shares is not None:
        d_probabilities = d_probabilities + widen(d_shares)
    total = (d_probabilities * shares).sum(axis=-1, keepdims=True)
    empty = _is_fully_masked(_additive_mask(mask, shares.shape, mask_meaning))
    if fully_masked == "uniform_ones":
        shares = np.where(empty, 1.0, shares)
    d_products = shares * (d_probabilities - total)
    if fully_masked in ("zeros", "uniform"):
        d_products = np.where(empty, 0.0, d_products)
    return (
        scale * (d_products @ key),
        scale * (d_products.swapaxes(-1, -2) @ query),
        shares.swapaxes(-1, -2) @ d_outputs,
    )


def multi_head_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    weights: Mapping[str, ArrayLike],
    mask: ArrayLike | None,
    padding: ArrayLike | None,
    *,
    heads: int,
    scale: float,
    mask_meaning: MaskMeaning,
    padding_meaning: PaddingMeaning,
    causal: bool,
    fully_masked: FullyMasked,
) -> tuple[Array, Array]:
    """Return `(outputs, shares)`, `(n, t, e)` and `(n, heads, t, s)`.

    Query, key and value are projected, split into heads of `d = r / heads` each, attended with
    `scale = 1 / sqrt(d)`, joined and projected again (Vaswani et al. 2017, section 3.2.2).

    Args:
        query: `(n, t, e)`; both frameworks' layers are taken batch first.
        key: `(n, s, k)`.
        value: `(n, s, v)`.
        weights: By PyTorch's names: `in_proj_weight` `(3 r, e)`, or `q_proj_weight` `(r, e)`,
            `k_proj_weight` `(r, k)` and `v_proj_weight` `(r_v, v)`; `in_proj_bias`, of all rows, or
            none; `out_proj.weight` `(o, r_v)`, `out_proj.bias` `(o,)` or none. In torch `r`, `r_v`
            and `o` are `e`; in Keras `r = heads * key_dim`, `r_v = heads * value_dim` and `o` is
            `output_shape`.
        mask: Broadcast to `(n, heads, t, s)`, or None.
        padding: Of the keys, `(n, s)`, or None.
        heads: Number of heads.
        scale: Factor of the dot products, `1 / sqrt(d)` in either framework; but Keras on
            tensorflow rounds it to float32 before it is widened to whatever it computes in, which
            only powers of two survive.
        mask_meaning: As `scaled_dot_product_attention` takes it.
        padding_meaning: Whether True keeps a key, `attend` (Keras' masks), or leaves it out,
            `ignore` (torch's `key_padding_mask`).
        causal: Whether a query sees no key of a later place (Keras' `use_causal_mask`; torch takes
            it as a mask).
        fully_masked: As `scaled_dot_product_attention` takes it.

    Torch returns the mean of the shares over heads by default, Keras none.

    Raises:
        SpecError: If shapes do not fit or an argument is unknown.

    Source: torch 2.13.0, nn.MultiheadAttention; keras 3.15.1, MultiHeadAttention.
    """
    projection = _Projection(query, key, value, weights, heads=heads)
    joint = _join_masks(
        mask, padding, projection, mask_meaning=mask_meaning,
        padding_meaning=padding_meaning, causal=causal,
    )  # fmt: skip
    attended, shares = scaled_dot_product_attention(
        *projection.split(), joint,
        scale=scale, mask_meaning="add", fully_masked=fully_masked,
    )  # fmt: skip
    return projection.join(attended), shares


def multi_head_attention_backward(
    d_outputs: ArrayLike,
    d_shares: ArrayLike | None,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    weights: Mapping[str, ArrayLike],
    mask: ArrayLike | None,
    padding: ArrayLike | None,
    *,
    heads: int,
    scale: float,
    mask_meaning: MaskMeaning,
    padding_meaning: PaddingMeaning,
    causal: bool,
    fully_masked: FullyMasked,
) -> tuple[Array, Array, Array, Arrays]:
    """Return the gradients of `multi_head_attention`: of query, key, value and weights by name.

    The gradient of the key's bias is 0 in theory: it adds the same to every product of a query,
    which a softmax does not see. What is computed is rounding, on any framework, so it is to be
    held against the other gradients and never against itself.
    """
    projection = _Projection(query, key, value, weights, heads=heads)
    joint = _join_masks(
        mask, padding, projection, mask_meaning=mask_meaning,
        padding_meaning=padding_meaning, causal=causal,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "scale": scale,
        "mask_meaning": "add",
        "fully_masked": fully_masked,
    }
    parts = projection.split()
    attended, _ = scaled_dot_product_attention(*parts, joint, **settings)
    d_attended, d_weights = projection.join_backward(widen(d_outputs), attended)
    d_parts = scaled_dot_product_attention_backward(d_attended, d_shares, *parts, joint, **settings)
    d_inputs, of_inputs = projection.split_backward(d_parts)
    return *d_inputs, d_weights | of_inputs


class _Projection:
    """The projections of query, key and value into heads, and of the heads into the outputs."""

    def __init__(
        self,
        query: ArrayLike,
        key: ArrayLike,
        value: ArrayLike,
        weights: Mapping[str, ArrayLike],
        *,
        heads: int,
    ) -> None:
        self.inputs = [widen(query), widen(key), widen(value)]
        self.heads, self.packed = heads, "in_proj_weight" in weights
        self.weights = {name: widen(array) for name, array in weights.items()}
        self.names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        missing = {*(() if self.packed else self.names), "out_proj.weight"} - {*weights}
        if missing or heads < 1:
            message = (
                f"multi_head_attention: expected heads >= 1 and weights in_proj_weight, or "
                f"{', '.join(self.names)}; and out_proj.weight; got {heads} and "
                f"{', '.join(weights)}."
            )
            raise SpecError(message)
        if self.packed:
            self.kernels = np.split(self.weights["in_proj_weight"], 3)
        else:
            self.kernels = [self.weights[name] for name in self.names]
        rows = [len(kernel) for kernel in self.kernels]
        self.cuts = [rows[0], rows[0] + rows[1]]
        self.biases = np.split(self.weights.get("in_proj_bias", np.zeros(sum(rows))), self.cuts)
        self._check(rows)

    def _check(self, rows: list[int]) -> None:
        came = [array.shape for array in (*self.inputs, *self.kernels)]
        pairs = zip(self.inputs, self.kernels, strict=True)
        fits = (
            all(x.ndim == 3 and k.ndim == 2 and x.shape[2] == k.shape[1] for x, k in pairs)
            and rows[0] == rows[1]
            and all(count % self.heads == 0 for count in rows)
            and self.weights["out_proj.weight"].shape[1:] == (rows[2],)
            and [len(bias) for bias in self.biases] == rows
        )
        if not fits:
            message = (
                "multi_head_attention: expected inputs (n, t, e), (n, s, k) and (n, s, v), and "
                f"kernels of as many columns, their rows multiples of {self.heads} heads; "
                f"got {came}."
            )
            raise SpecError(message)

    def split(self) -> tuple[Array, Array, Array]:
        """Return query, key and value by head, `(n, heads, t, d)`."""
        rows = zip(self.inputs, self.kernels, self.biases, strict=True)
        query, key, value = (
            _split_heads(inputs @ kernel.T + bias, self.heads) for inputs, kernel, bias in rows
        )
        return query, key, value

    def split_backward(
        self, d_parts: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array, Array], Arrays]:
        """Return the gradients of the inputs, and of the weights by name."""
        joined = [_join_heads(d_part) for d_part in d_parts]
        query, key, value = (d @ kernel for d, kernel in zip(joined, self.kernels, strict=True))
        d_kernels = [
            np.einsum("ntr,nte->re", d, x) for d, x in zip(joined, self.inputs, strict=True)
        ]
        gradients = dict(zip(self.names, d_kernels, strict=True))
        if self.packed:
            gradients = {"in_proj_weight": np.concatenate(d_kernels)}
        if "in_proj_bias" in self.weights:
            gradients["in_proj_bias"] = np.concatenate([d.sum(axis=(0, 1)) for d in joined])
        return (query, key, value), gradients

    def join(self, attended: Array) -> Array:
        """Return the outputs, `(n, t, o)`."""
        outputs: Array = _join_heads(attended) @ self.weights["out_proj.weight"].T
        return outputs + self.weights.get("out_proj.bias", np.zeros(1))

    def join_backward(self, d_outputs: Array, attended: Array) -> tuple[Array, Arrays]:
        """Return the gradient of the heads' results, and of the weights by name."""
        weight = self.weights["out_proj.weight"]
        gradients = {"out_proj.weight": np.einsum("nto,ntr->or", d_outputs, _join_heads(attended))}
        if "out_proj.bias" in self.weights:
            gradients["out_proj.bias"] = d_outputs.sum(axis=(0, 1))
        return _split_heads(d_outputs @ weight, self.heads), gradients


def _split_heads(joined: Array, heads: int) -> Array:
    return joined.reshape(*joined.shape[:2], heads, -1).swapaxes(1, 2)


def _join_heads(by_head: Array) -> Array:
    count, heads, places, size = by_head.shape
    return by_head.swapaxes(1, 2).reshape(count, places, heads * size)


def _check_shapes(query: ArrayLike, key: ArrayLike, value: ArrayLike) -> tuple[Array, Array, Array]:
    query, key, value = widen(query), widen(key), widen(value)
    if query.shape[-1:] != key.shape[-1:] or key.shape[-2:-1] != value.shape[-2:-1]:
        message = (
            "scaled_dot_product_attention: expected query (..., t, d), key (..., s, d) and value "
            f"(..., s, v); got {query.shape}, {key.shape} and {value.shape}."
        )
        raise SpecError(message)
    return query, key, value


def _additive_mask(mask: ArrayLike | None, shape: tuple[int, ...], meaning: str) -> Array:
    """Return what is added to the products: 0, or minus infinity where a key is left out."""
    if meaning not in _MASK_MEANINGS:
        message = f"mask_meaning must be one of {', '.join(_MASK_MEANINGS)}; got {meaning!r}."
        raise SpecError(message)
    if mask is None:
        return np.zeros(shape)
    if meaning == "add":
        return np.broadcast_to(widen(mask), shape)
    chosen, left_out = (0.0, -np.inf) if meaning == "attend" else (-np.inf, 0.0)
    added = np.where(np.asarray(mask, dtype=np.bool_), chosen, left_out)
    return np.broadcast_to(added, shape)


def _is_fully_masked(added: Array) -> NDArray[np.bool_]:
    largest: Array = added.max(axis=-1, keepdims=True)
    return np.equal(largest, -np.inf)


def _softmax(products: Array, fully_masked: str) -> Array:
    if fully_masked not in _FULLY_MASKED:
        message = f"fully_masked must be one of {', '.join(_FULLY_MASKED)}; got {fully_masked!r}."
        raise SpecError(message)
    empty = _is_fully_masked(products)
    safe = np.where(empty, 0.0, products)
    powers = np.exp(safe - safe.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    if fully_masked in ("nan", "zeros"):
        shares = np.where(empty, np.nan if fully_masked == "nan" else 0.0, shares)
    return shares


def _join_masks(
    mask: ArrayLike | None,
    padding: ArrayLike | None,
    projection: _Projection,
    *,
    mask_meaning: MaskMeaning,
    padding_meaning: PaddingMeaning,
    causal: bool,
) -> Array:
    """Return all masks as one that is added, `(n, heads, t, s)`."""
    if padding_meaning not in ("attend", "ignore"):
        message = f"padding_meaning must be attend or ignore; got {padding_meaning!r}."
        raise SpecError(message)
    count, queries = projection.inputs[0].shape[:2]
    shape = (count, projection.heads, queries, projection.inputs[1].shape[1])
    joint = _additive_mask(mask, shape, mask_meaning)
    if padding is not None:
        keys = np.asarray(padding)[:, np.newaxis, np.newaxis, :]
        joint = joint + _additive_mask(keys, shape, padding_meaning)
    if causal:
        joint = joint + _additive_mask(np.tri(*shape[2:]), shape, "attend")
    return joint
