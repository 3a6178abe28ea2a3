"""Every convention of every reference layer, turned the wrong way against a stock layer.

A row is one stock PyTorch layer, the conventions under which the reference gives its numbers, and a
wrong value for each. A wrong one is caught if the outputs part, or if the reference refuses it. The
rows are held to the reference's own arguments: a new one without a row fails.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from models_torch.layers import Dropout
from parity.errors import DivergenceError, SpecError
from parity.reference import layers as reference
from parity.reference.layers import Recurrence, Resampling
from parity.rng import stream
from parity.testing.assertions import assert_close

BOUND = 1e-12

# No layers: arithmetic of windows and places, whose results are arguments of layers above.
PARTS = ("embedding_mask", "lstm_initial_bias", "resize_matrix", "transposed_crops", "window_pads")
# Arguments that are themselves tables of conventions.
TABLES = {"how": Recurrence, "resampling": Resampling}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A stock layer and how the reference is told to be it.

    Attributes:
        layer: Name in `parity.reference.layers`.
        stock: Called with the arrays as tensors; what it returns is compared in order.
        arrays: What both are given.
        right: The reference's conventions.
        wrong: A wrong value of some of them; `how.merge` is a field of the argument `how`.
        extra: What only the reference is given, after the arrays.
    """

    layer: str
    stock: Callable[..., Any]
    arrays: tuple[Any, ...]
    right: dict[str, Any]
    wrong: dict[str, Any]
    extra: tuple[Any, ...] = ()


def normal(name, *shape):
    return stream(0, "conventions", name).standard_normal(shape)


IMAGES = normal("images", 2, 4, 7, 6)
NEGATIVE = -np.abs(IMAGES) - 0.1
ROWS_OF_FEATURES = 2.0 * normal("features", 5, 6)
ONES = (np.ones(4), np.zeros(4), np.zeros(4), np.ones(4))


def activation(layer, stock, right, wrong, inputs=ROWS_OF_FEATURES):
    return Row(layer=layer, stock=stock, arrays=(inputs,), right=right, wrong=wrong)


def stock_batch_norm(x, weight, bias, mean, var):
    outputs = functional.batch_norm(
        x, mean, var, weight, bias, training=True, momentum=0.1, eps=1e-5
    )
    return outputs, mean, var  # torch has moved both


def batch_norm_row(layer, inputs):
    return Row(
        layer=layer,
        stock=stock_batch_norm,
        arrays=(inputs, *ONES),
        right={"training": True, "stats_decay": 0.9, "variance_correction": 1, "epsilon": 1e-5},
        wrong={"training": False, "stats_decay": 0.99, "variance_correction": 0, "epsilon": 1e-3},
    )


def stock_dropout(kept, *, by_sample):
    layer = Dropout(0.4, by_sample=by_sample)
    layer.kept = torch.tensor(kept)
    return layer


def dropping_row(layer, shape):
    kept = stream(0, "conventions", "kept").random(shape) >= 0.4
    return Row(
        layer=layer,
        stock=stock_dropout(kept, by_sample=layer == "stochastic_depth"),
        arrays=(IMAGES,),
        extra=(kept,),
        right={"rate": 0.4, "scale_at": "training", "training": True},
        wrong={"rate": 0.5, "scale_at": "inference", "training": False},
    )


GATES = {"simple_rnn": 1, "gru": 3, "lstm": 4}
STOCK_CELLS = {"simple_rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
SEQUENCE = normal("sequence", 2, 5, 3)


def cell_weights(cell, suffixes):
    rows = 4 * GATES[cell]
    weights = {}
    for suffix in suffixes:
        width = 8 if suffix.startswith("_l1") else 3
        shapes = {"weight_ih": (rows, width), "weight_hh": (rows, 4)}
        shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        weights |= {f"{name}{suffix}": normal(name + suffix, *shapes[name]) for name in shapes}
    return weights


def stock_cell(cell, weights, **options):
    layer = STOCK_CELLS[cell](3, 4, batch_first=True, **options).double()
    layer.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return layer


def cell_row(cell, right, wrong):
    weights = cell_weights(cell, ("_l0",))
    layer = stock_cell(cell, weights)
    states = [np.zeros((2, 4))] * (2 if cell == "lstm" else 1)
    return Row(
        layer=cell,
        stock=lambda x: layer(x)[0],
        arrays=(SEQUENCE,),
        extra=(*states, *weights.values()),
        right=right,
        wrong=wrong,
    )


def stack_row(how, wrong, *, suffixes, stock):
    weights = cell_weights("gru", suffixes)
    options = {"num_layers": how.layers, "bidirectional": how.direction == "both"}
    layer = stock_cell("gru", weights, **options)
    states = np.zeros((how.layers * len(how.reverses), 2, 4))
    return Row(
        layer="recurrent",
        stock=lambda x: stock(layer, x),
        arrays=(SEQUENCE,),
        extra=(states, None, weights),
        right={"how": how},
        wrong={f"how.{field}": value for field, value in wrong.items()},
    )


HOW = Recurrence(
    cell="gru",
    layers=2,
    direction="both",
    merge="concat",
    returned="sequence",
    backward_order="time",
    batch_first=True,
    activation="tanh",
    recurrent_activation="sigmoid",
    reset_after=True,
)
BACKWARD = dataclasses.replace(HOW, layers=1, direction="backward")
GRU_WRONG = {"activation": "relu", "recurrent_activation": "hard_sigmoid", "reset_after": False}


def resize_row(stock, resampling, wrong, *, scale_factors=None):
    return Row(
        layer="resize2d",
        stock=stock,
        arrays=(IMAGES,),
        extra=((4, 4),),
        right={"resampling": resampling, "scale_factors": scale_factors},
        wrong=wrong,
    )


BILINEAR = Resampling(
    method="bilinear",
    centers="half_pixel",
    antialias=False,
    cubic_coefficient=None,
    border="repeat",
)
BICUBIC = Resampling(
    method="bicubic", centers="half_pixel", antialias=True, cubic_coefficient=-0.5, border="drop"
)

ATTENTION = tuple(normal(part, 2, 3, 4) for part in ("query", "key", "value"))
ATTEND = np.array([[True, False, True], [True, True, False], [False, False, False]])
PADDING = np.array([[False, False, True], [False, False, False]])
HEADS = {
    "in_proj_weight": normal("in", 12, 4),
    "in_proj_bias": normal("in bias", 12),
    "out_proj.weight": normal("out", 4, 4),
    "out_proj.bias": normal("out bias", 4),
}


def stock_heads(query, key, value):
    layer = nn.MultiheadAttention(4, 2, batch_first=True).double()
    layer.load_state_dict({name: torch.tensor(array) for name, array in HEADS.items()})
    return layer(
        query,
        key,
        value,
        attn_mask=torch.tensor(~ATTEND),
        key_padding_mask=torch.tensor(PADDING),
        average_attn_weights=False,
    )


POOL = {"kernel": 3, "stride": 2, "padding": ((1, 1), (1, 1)), "ceil_mode": True}
POOL_WRONG = {"kernel": 2, "stride": 1, "padding": "end", "ceil_mode": False}
NORM = {"epsilon": 1e-5}
NORM_WRONG = {"epsilon": 1e-3}
AFFINE = (normal("weight", 4), normal("bias", 4))
CONV = (IMAGES, normal("kernel", 6, 2, 3, 3), normal("conv bias", 6))
TRANSPOSED = (IMAGES, normal("kernel", 4, 3, 3, 3), normal("conv bias", 6))

TABLE = (
    Row(
        layer="average_pool2d",
        stock=lambda x: functional.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True),
        arrays=(IMAGES,),
        right=POOL | {"count_include_pad": True},
        wrong=POOL_WRONG | {"count_include_pad": False},
    ),
    Row(
        layer="max_pool2d",
        stock=lambda x: functional.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True),
        arrays=(NEGATIVE,),
        right=POOL | {"fill": -np.inf, "dilation": 1},
        wrong=POOL_WRONG | {"fill": 0.0, "dilation": 2},
    ),
    batch_norm_row("batch_norm", normal("rows", 5, 4)),
    batch_norm_row("batch_norm2d", IMAGES),
    Row(
        layer="conv2d",
        stock=lambda *a: functional.conv2d(*a, stride=2, padding=1, groups=2),
        arrays=CONV,
        right={"stride": 2, "padding": ((1, 1), (1, 1)), "dilation": 1, "groups": 2},
        wrong={"stride": 1, "padding": "end", "dilation": 2, "groups": 1},
    ),
    Row(
        layer="conv_transpose2d",
        stock=lambda *a: functional.conv_transpose2d(*a, stride=2, padding=1, groups=2),
        arrays=TRANSPOSED,
        right={"stride": 2, "crops": ((1, 1), (1, 1)), "dilation": 1, "groups": 2},
        wrong={"stride": 1, "crops": ((0, 2), (0, 2)), "dilation": 2, "groups": 1},
    ),
    dropping_row("dropout", IMAGES.shape),
    dropping_row("stochastic_depth", (2, 1, 1, 1)),
    Row(
        layer="embedding",
        stock=functional.embedding,
        arrays=(np.array([0, 2, -1]), normal("table", 3, 2)),
        right={"out_of_range": "refuse"},
        wrong={"out_of_range": "wrap"},
    ),
    Row(
        layer="flatten",
        stock=lambda x: x.flatten(1),
        arrays=(IMAGES,),
        right={"order": "chw"},
        wrong={"order": "hwc"},
    ),
    activation("celu", lambda x: functional.celu(x, 1.3), {"alpha": 1.3}, {"alpha": 1.0}),
    activation("elu", lambda x: functional.elu(x, 1.3), {"alpha": 1.3}, {"alpha": 1.0}),
    activation("gelu", functional.gelu, {"form": "exact"}, {"form": "tanh"}),
    activation("glu", lambda x: functional.glu(x, 1), {"axis": 1}, {"axis": 0}),
    activation("hard_shrink", functional.hardshrink, {"threshold": 0.5}, {"threshold": 0.6}),
    activation("hard_sigmoid", functional.hardsigmoid, {"slope": 1 / 6}, {"slope": 0.2}),
    activation(
        "hard_tanh",
        lambda x: functional.hardtanh(x, -0.5, 0.7),
        {"low": -0.5, "high": 0.7},
        {"low": -1.0, "high": 1.0},
    ),
    activation(
        "leaky_relu",
        functional.leaky_relu,
        {"negative_slope": 0.01},
        {"negative_slope": 0.3},
    ),
    activation("log_softmax", lambda x: x.log_softmax(1), {"axis": 1}, {"axis": 0}),
    activation("softmax", lambda x: x.softmax(1), {"axis": 1}, {"axis": 0}),
    activation("soft_shrink", functional.softshrink, {"threshold": 0.5}, {"threshold": 0.6}),
    activation(
        "softplus",
        lambda x: functional.softplus(x, beta=2.0, threshold=1.0),
        {"beta": 2.0, "threshold": 1.0},
        {"beta": 1.0, "threshold": None},
    ),
    activation(
        "unit_norm",
        lambda x: functional.normalize(x, dim=1, eps=5.0),
        {"axis": 1, "floor": 5.0},
        {"axis": 0, "floor": 1e-12},
    ),
    Row(
        layer="group_norm",
        stock=lambda x, w, b: functional.group_norm(x, 2, w, b, eps=1e-5),
        arrays=(IMAGES, *AFFINE),
        right=NORM | {"groups": 2},
        wrong=NORM_WRONG | {"groups": 4},
    ),
    Row(
        layer="instance_norm",
        stock=lambda x, w, b: functional.instance_norm(x, weight=w, bias=b, eps=1e-5),
        arrays=(IMAGES, *AFFINE),
        right=NORM,
        wrong=NORM_WRONG,
    ),
    Row(
        layer="layer_norm",
        stock=lambda x, w, b: functional.layer_norm(x, (4,), w, b, eps=1e-5),
        arrays=(normal("square", 4, 4), *AFFINE),
        right=NORM | {"axes": (1,)},
        wrong=NORM_WRONG | {"axes": (0,)},
    ),
    Row(
        layer="rms_norm",
        stock=lambda x, w: functional.rms_norm(x, (4,), w, eps=1e-5),
        arrays=(normal("square", 4, 4), AFFINE[0]),
        right=NORM | {"axes": (1,)},
        wrong=NORM_WRONG | {"axes": (0,)},
    ),
    Row(
        layer="pad2d",
        stock=lambda x: functional.pad(x, (1, 2, 3, 1), mode="reflect"),
        arrays=(IMAGES,),
        right={"pads": ((3, 1), (1, 2)), "mode": "reflect", "value": 0.0},
        wrong={"pads": ((1, 2), (3, 1)), "mode": "symmetric"},
    ),
    Row(
        layer="pad2d",
        stock=lambda x: functional.pad(x, (1, 2, 3, 1), value=0.5),
        arrays=(IMAGES,),
        right={"pads": ((3, 1), (1, 2)), "mode": "constant", "value": 0.5},
        wrong={"value": 0.0},
    ),
    Row(
        layer="pixel_shuffle",
        stock=lambda x: functional.pixel_shuffle(x, 2),
        arrays=(normal("deep", 2, 8, 2, 2),),
        right={"factor": 2, "order": "cij"},
        wrong={"factor": 1, "order": "ijc"},
    ),
    Row(
        layer="pixel_unshuffle",
        stock=lambda x: functional.pixel_unshuffle(x, 2),
        arrays=(normal("wide", 2, 3, 4, 4),),
        right={"factor": 2, "order": "cij"},
        wrong={"factor": 4, "order": "ijc"},
    ),
    cell_row("simple_rnn", {"activation": "tanh"}, {"activation": "relu"}),
    cell_row(
        "lstm",
        {"activation": "tanh", "recurrent_activation": "sigmoid"},
        {"activation": "linear", "recurrent_activation": "hard_sigmoid_keras2"},
    ),
    cell_row(
        "gru",
        {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True},
        GRU_WRONG,
    ),
    stack_row(
        HOW,
        GRU_WRONG
        | {
            "layers": 1,
            "direction": "forward",
            "merge": "sum",
            "returned": "last_step",
            "batch_first": False,
        },
        suffixes=("_l0", "_l0_reverse", "_l1", "_l1_reverse"),
        stock=lambda layer, x: layer(x)[0],
    ),
    # Torch has no layer that only goes backwards: one that is given its steps in reverse.
    stack_row(
        BACKWARD,
        {"backward_order": "processing"},
        suffixes=("_l0",),
        stock=lambda layer, x: layer(x.flip(1))[0].flip(1),
    ),
    # Another cell with as many gates' rows is refused by its weights.
    stack_row(
        dataclasses.replace(BACKWARD, direction="forward"),
        {"cell": "simple_rnn"},
        suffixes=("_l0",),
        stock=lambda layer, x: layer(x)[0],
    ),
    resize_row(
        lambda x: functional.interpolate(x, (4, 4), mode="bilinear"),
        BILINEAR,
        {
            "resampling.method": "nearest",
            "resampling.centers": "corners",
            "resampling.antialias": True,
        },
    ),
    resize_row(
        lambda x: functional.interpolate(x, (4, 4), mode="bicubic", antialias=True),
        BICUBIC,
        {"resampling.cubic_coefficient": -0.75, "resampling.border": "repeat"},
    ),
    resize_row(
        lambda x: functional.interpolate(x, scale_factor=(0.6, 0.7), mode="bilinear"),
        BILINEAR,
        {"scale_factors": None},
        scale_factors=(0.6, 0.7),
    ),
    Row(
        layer="scaled_dot_product_attention",
        stock=lambda *a: functional.scaled_dot_product_attention(
            *a, attn_mask=torch.tensor(ATTEND)
        ),
        arrays=ATTENTION,
        extra=(ATTEND,),
        right={"scale": 0.5, "mask_meaning": "attend", "fully_masked": "zeros"},
        wrong={"scale": 1.0, "mask_meaning": "ignore", "fully_masked": "uniform"},
    ),
    Row(
        layer="multi_head_attention",
        stock=stock_heads,
        arrays=ATTENTION,
        extra=(HEADS, ~ATTEND, PADDING),
        right={
            "heads": 2,
            "scale": 1.0 / np.sqrt(2.0),
            "mask_meaning": "ignore",
            "padding_meaning": "ignore",
            "causal": False,
            "fully_masked": "nan",
        },
        wrong={
            "heads": 4,
            "scale": 0.5,
            "mask_meaning": "attend",
            "padding_meaning": "attend",
            "causal": True,
            "fully_masked": "zeros",
        },
    ),
)
SEEDED = [(row, name) for row in TABLE for name in row.wrong]


def arrays_of(result):
    parts = result if isinstance(result, tuple) else (result,)
    return [np.asarray(part) for part in parts if part is not None]


def stock_outputs(row):
    """Return what the stock layer gives, or None where it refuses."""
    tensors = [torch.tensor(array) for array in row.arrays]
    try:
        with torch.no_grad():
            return arrays_of(row.stock(*tensors))
    except IndexError:
        return None


def judge(row, knobs):
    """Return what tells the reference from the stock layer: `differs`, `refuses` or nothing."""
    expected = stock_outputs(row)
    try:
        actual = arrays_of(getattr(reference, row.layer)(*row.arrays, *row.extra, **knobs))
    except SpecError:
        return "refuses" if expected is not None else ""
    if expected is None:
        return "differs"
    try:
        for one, other in zip(actual, expected, strict=False):
            assert_close(one, other, atol=BOUND, rtol=BOUND)
    except DivergenceError:
        return "differs"
    return ""


def turned(row, name):
    """Return the row's conventions with the one of that name turned the wrong way."""
    knob, _, field = name.partition(".")
    value = row.wrong[name]
    if not field:
        return row.right | {knob: value}
    changes = {field: value}
    if value == "simple_rnn":
        # A specification of its own, which has no gates to speak of.
        changes |= {"recurrent_activation": None, "reset_after": None}
    return row.right | {knob: dataclasses.replace(row.right[knob], **changes)}


def knobs_of(layer):
    """Return the conventions of a reference layer by name, fields of tables one by one."""
    names = set()
    for parameter in inspect.signature(getattr(reference, layer)).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            table = TABLES.get(parameter.name)
            fields = dataclasses.fields(table) if table else ()
            names |= {f"{parameter.name}.{field.name}" for field in fields} or {parameter.name}
    return names


def layer_kinds():
    return [
        name
        for name in reference.__all__
        if inspect.isfunction(getattr(reference, name))
        and not name.endswith("_backward")
        and name not in PARTS
    ]


def unseeded(table):
    """Return every convention of the reference that no row turns, as `layer.convention`."""
    seeded = {f"{row.layer}.{name}" for row in table for name in row.wrong}
    known = {f"{layer}.{name}" for layer in layer_kinds() for name in knobs_of(layer)}
    return sorted(known ^ seeded)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.layer}-{next(iter(row.wrong))}")
def test_reference_is_the_stock_layer_under_its_conventions(row):
    assert judge(row, row.right) == ""


@pytest.mark.parametrize(
    ("row", "name"), SEEDED, ids=[f"{row.layer}-{name}" for row, name in SEEDED]
)
def test_a_wrong_convention_is_caught(row, name):
    assert judge(row, turned(row, name)) in ("differs", "refuses")


def test_every_convention_of_the_reference_is_seeded():
    assert unseeded(TABLE) == []


@pytest.mark.parametrize("layer", ["gelu", "recurrent"])
def test_a_layer_without_a_row_is_missed(layer):
    rows = [row for row in TABLE if row.layer != layer]

    assert unseeded(rows) == sorted(f"{layer}.{name}" for name in knobs_of(layer))


def test_all_seeded_conventions_are_caught_and_the_share_is_said(capsys):
    verdicts = [judge(row, turned(row, name)) for row, name in SEEDED]

    caught = len(verdicts) - verdicts.count("")
    layers = len({row.layer for row in TABLE})
    with capsys.disabled():
        print(  # noqa: T201  # the share is what the run is read for
            f"\nlayer conventions: {caught} / {len(SEEDED)} caught over {layers} layer kinds "
            f"({verdicts.count('refuses')} refused)"
        )
    assert caught == len(SEEDED)
