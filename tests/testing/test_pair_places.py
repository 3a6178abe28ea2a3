"""Where a seeded fault is follows from the two plans; the names there are those of operations."""

import dataclasses

import pytest

from parity.frameworks.pairs.plan import Node, Plan
from parity.testing.pairs import Pair, SeededFault, draw_pair, seed_fault
from parity.testing.pairs.edits import exchange, insert_after, insert_before, remove
from parity.testing.pairs.places import fault_nodes, is_operation_of, is_place_of_fault


def chain():
    """Return a residual block of functions: `relu`, `tanh` on the branch, their sum, `elu`."""

    def activation(name, source, function):
        settings = {"function": function, "alpha": 1.0}
        return Node(name=name, kind="activation", inputs=(source,), settings=settings)

    nodes = (
        activation("first", "input", "relu"),
        activation("branch", "first", "tanh"),
        Node(name="sum", kind="add", inputs=("first", "branch")),
        activation("last", "sum", "elu"),
        activation("end", "last", "relu"),
    )
    return Plan(
        seed=0, family="mlp", nodes=nodes, input_shape=(3,), forms={"torch": "", "keras": ""}
    )


def with_fault(candidate, layer, phase="forward"):
    return Pair(
        seed=0,
        reference=chain(),
        candidate=candidate,
        reference_side="torch",
        weights_mode="transfer",
        fault=SeededFault(kind="", layer=layer, phase=phase, effect=1.0),
    )


@pytest.mark.parametrize(
    ("candidate", "layer", "expected"),
    [
        pytest.param(chain(), "last", {"last"}, id="setting"),
        pytest.param(remove(chain(), "last"), "last", {"last"}, id="left out"),
        pytest.param(
            insert_after(chain(), "first", "scale", factor=2.0),
            "first",
            {"first", "scale_after_first"},
            id="put in",
        ),
        pytest.param(remove(chain(), "sum", operand=0), "sum", {"sum", "branch"}, id="branch"),
        pytest.param(
            exchange(chain(), "sum", "last", operand=1), "sum", {"sum", "last", "end"}, id="moved"
        ),
    ],
)
def test_nodes_at_fault_are_those_left_out_put_in_or_moved(candidate, layer, expected):
    assert fault_nodes(with_fault(candidate, layer)) == expected


def test_fault_in_gradients_is_also_at_the_value_that_it_stands_behind():
    candidate = insert_before(chain(), "sum", 1, "detach")

    assert fault_nodes(with_fault(candidate, "sum", "gradients")) == {
        "sum",
        "detach_before_sum",
        "branch",
    }


def test_clean_pair_has_no_node_at_fault():
    pair = dataclasses.replace(with_fault(chain(), "last"), fault=None)

    assert fault_nodes(pair) == frozenset()
    assert not is_place_of_fault(pair, "last", "last")


def test_function_of_tensors_is_told_from_another_of_its_word_by_its_number():
    nodes = [dataclasses.replace(node, styles={"torch": "functional"}) for node in chain().nodes]
    pair = with_fault(dataclasses.replace(chain(), nodes=tuple(nodes)), "end")
    pair = dataclasses.replace(pair, reference=pair.candidate)

    assert is_operation_of(pair, "first", side="torch", name="/relu")
    assert is_operation_of(pair, "end", side="torch", name="/relu#2")
    assert not is_operation_of(pair, "end", side="torch", name="/relu")


def test_what_is_inside_a_layer_is_of_it_and_a_longer_name_is_not():
    pair = seed_fault(draw_pair(1, family="mlp"), "weights_not_loaded")
    layer = pair.fault.layer
    path = pair.layer_names[layer][pair.reference_side]

    assert is_place_of_fault(pair, path, "")
    assert is_place_of_fault(pair, f"{path}/multiply", "")
    assert not is_place_of_fault(pair, f"{path}0", "")
    assert not is_place_of_fault(pair, "", path + "_other")
