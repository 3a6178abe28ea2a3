"""The reference update rules against what timm and airbench printed.

`benchmarks/print_peer_updates.py` printed it once, with the versions that the file names.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from parity.reference.optimizers import (
    initial_slots,
    update_parameters,
)
from parity.rng import stream
from parity.spec.optimizers import (
    Lookahead,
    LookaheadEma,
    NormClipping,
    Update,
)
from parity.spec.position import position_at
from parity.testing import specs
from parity.testing.assertions import assert_states_close
from parity.testing.updates import (
    LAMB,
    LARS,
    UNDECAYED_VECTORS,
)

SGD = dataclasses.replace(specs.SGD, lr=0.5)

PEERS = json.loads(
    Path(__file__).with_name("data").joinpath("peer_updates.json").read_text("utf-8")
)
TIMM_LAMB = dataclasses.replace(LAMB, lr=0.1, decoupled_decay=0.02)
TIMM_LARS = dataclasses.replace(LARS, lr=0.1, l2=5e-4, trust_coefficient=0.001, norm_epsilon=1e-8)
UNDECAYED = (UNDECAYED_VECTORS,)
LIMITED = NormClipping(kind="global_norm", limit=1.0, epsilon=0.0)
# timm 1.0.31 and airbench 0.1.8; Lookahead of airbench in single precision.
PEER_ROWS = {
    "lamb": (Update(rule=TIMM_LAMB, groups=UNDECAYED, clipping=LIMITED), 1e-13),
    "lamb-capped": (
        Update(rule=dataclasses.replace(TIMM_LAMB, greatest_ratio=1.0), groups=UNDECAYED),
        1e-13,
    ),
    "lamb-always": (
        Update(
            rule=dataclasses.replace(TIMM_LAMB, adapts_undecayed=True),
            groups=UNDECAYED,
            clipping=LIMITED,
        ),
        1e-13,
    ),
    "lars": (Update(rule=TIMM_LARS, groups=UNDECAYED), 1e-13),
    "lars-nesterov": (
        Update(rule=dataclasses.replace(TIMM_LARS, nesterov=True), groups=UNDECAYED),
        1e-13,
    ),
    "lars-always": (
        Update(rule=dataclasses.replace(TIMM_LARS, adapts_undecayed=True), groups=UNDECAYED),
        1e-13,
    ),
    "lookahead": (
        Update(
            rule=SGD,
            averaging=Lookahead(every=3, slow_rate=0.5, starts_at="first_move", scores_slow=True),
        ),
        1e-13,
    ),
    "lookahead-ema": (
        Update(
            rule=dataclasses.replace(SGD, momentum=0.85, nesterov=True),
            averaging=LookaheadEma(every=2, decay=0.95**5, power=3.0),
        ),
        1e-6,
    ),
}


@pytest.mark.parametrize("row", PEER_ROWS)
def test_update_matches_what_a_peer_printed(row):
    update, tolerance = PEER_ROWS[row]
    shapes = {name: tuple(shape) for name, shape in PEERS["shapes"].items()}
    parameters = {
        name: stream(0, "peer", "parameters", name, 0).standard_normal(shape)
        for name, shape in shapes.items()
    }
    slots, rates = initial_slots(update, parameters), PEERS["rates"]
    for step, rate in enumerate(rates):
        gradients = {
            name: stream(0, "peer", "gradients", name, step).standard_normal(shape)
            for name, shape in shapes.items()
        }
        parameters, slots = update_parameters(
            update,
            parameters,
            gradients,
            slots,
            rate=rate,
            step=step,
            position=position_at(step, steps_per_epoch=len(rates), steps=len(rates)),
        )

    expected = {
        name: np.reshape(values, shapes[name]) for name, values in PEERS["parameters"][row].items()
    }
    assert_states_close(parameters, expected, atol=tolerance, rtol=tolerance)


def test_every_printed_row_of_a_peer_is_compared():
    assert set(PEERS["parameters"]) == set(PEER_ROWS)
