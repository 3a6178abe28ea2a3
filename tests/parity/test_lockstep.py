"""Right twins stay within the bounds of every step; wrong ones are caught and named."""

import dataclasses

import pytest

from parity.cli.options import open_stream, resolve
from parity.lockstep import comparison, free, pair
from parity.lockstep.comparison import run_lockstep
from parity.lockstep.pair import LockstepSettings
from parity.testing.updates import MUON

MOMENTUM_FLOAT32 = 0.8999999761581421
BETA1_FLOAT32, BETA2_FLOAT32 = 0.8999999761581421, 0.9990000128746033


def lockstep(
    *,
    recipe="best_sgd",
    model="resnet8:width=4",
    steps=2,
    every=1,
    inject=None,
    mode="resync",
    dtype="float64",
    overrides=(),
    batch_size=16,
):
    changes = [f"batch_size={batch_size}", *overrides]
    resolved = resolve(recipe, data="digits", model=model, epochs=None, overrides=changes)
    stream = open_stream(resolved, seed=0, folder=None, download=False)
    settings = LockstepSettings(steps=steps, every=every, mode=mode, dtype=dtype)
    return run_lockstep(resolved, settings, stream=stream, inject=inject)


@pytest.mark.backend
@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("best_sgd", []),
        ("best_sgd", ["conventions.conv_bias=true"]),
        ("best_sgd", ["preset=keras", "optimizer.nesterov=true", "optimizer.decoupled_decay=0.01"]),
        ("best_adam", []),
        ("best_adam", ["conventions.conv_bias=true"]),
        ("best_adam", ["preset=keras", "optimizer.l2=5e-4"]),
    ],
    ids=[
        "sgd",
        "sgd-conv-bias",
        "sgd-keras-forms",
        "adamw",
        "adamw-conv-bias",
        "adam-keras-forms",
    ],
)
def test_right_twins_stay_within_the_bounds(recipe, overrides):
    record = lockstep(recipe=recipe, overrides=overrides, steps=4)

    assert record["verdict"] == "numerically equivalent", record["reason"]


# The whitening bias ends within the steps compared, and Lookahead writes back twice.
ENDING = (
    'groups=[{members="norm_bias", lr_factor=64.0, decay_factor=0.015625, trained_epochs=inf, '
    'schedule="shared"}, {members="bias", lr_factor=1.0, decay_factor=1.0, trained_epochs=0.5, '
    'schedule="shared"}]'
)


@pytest.mark.parametrize(
    ("recipe", "overrides", "steps"),
    [
        pytest.param("airbench94", [ENDING], 10, marks=pytest.mark.backend),
        ("airbench96", [], 2),
        ("airbench96_paper", [], 2),
        ("airbench94_muon", ["optimizer.orthogonalizes_in=own"], 2),
    ],
    ids=["94", "96", "96-paper", "94-muon"],
)
def test_right_airbench_twins_stay_within_the_bounds(recipe, overrides, steps):
    record = lockstep(
        recipe=recipe,
        model=f"{recipe}:width=4",
        overrides=["epochs=1", *overrides],
        batch_size=128,
        steps=steps,
    )

    assert record["verdict"] == "numerically equivalent", record["reason"]


# Injected value -> first quantity to depart. The penalty is the decay over the rate, and Lookahead
# writes back running statistics too.
AIRBENCH_FAULTS = {
    "decay_per_kilostep=0.01533": "slots",
    "lr_per_kilostep=11.5000001": "slots",
    "averaging.decay=0.774": "running mean",
    "blocks.1.bn1.bn_epsilon=1e-5": "forward",
    "stats_decay=0.9": "running mean",
}


@pytest.mark.parametrize("inject", AIRBENCH_FAULTS)
def test_wrong_airbench_twins_are_caught(inject):
    record = lockstep(
        recipe="airbench94",
        model="airbench94:width=4",
        overrides=["epochs=1"],
        batch_size=128,
        inject=inject,
        steps=5,
    )

    assert record["verdict"] == "diverges"
    assert record["first_divergence"]["quantity"] == AIRBENCH_FAULTS[inject]


def test_either_framework_can_be_the_reference():
    resolved = resolve(
        "best_sgd", data="digits", model="resnet8:width=4", epochs=None, overrides=[]
    )
    stream = open_stream(resolved, seed=0, folder=None, download=False)
    settings = LockstepSettings(steps=1, reference="keras", candidate="torch")

    record = run_lockstep(resolved, settings, stream=stream)

    assert record["verdict"] == "numerically equivalent", record["reason"]


def test_every_other_step_is_compared_and_the_last():
    every, each = lockstep(steps=5, every=2), lockstep(steps=5)

    assert [row["step"] for row in every["rows"]] == [0, 2, 4, 5]
    assert every["verdict"] == "numerically equivalent", every["reason"]
    # The steps between train the reference on the same batches.
    assert every["stream_digest"] == each["stream_digest"]
    losses = {row["step"]: row["loss"] for row in each["rows"]}
    assert all(row["loss"] == losses[row["step"]] for row in every["rows"])


# Injected value -> recipe, overrides, first quantity and part of its place.
ROWS = {
    "conv_bias=true": ("best_sgd", [], "state structure", ".bias"),
    "decay_scaled_by_lr=false": ("best_adam", ["schedule.unit=step"], "parameters", ""),
    "stats_decay=0.99": ("best_sgd", [], "running mean", "running_mean"),
    "conv_init=glorot_uniform": ("best_sgd", [], "initial parameters", "conv"),
    "head_weight_init=glorot_uniform": ("best_sgd", [], "initial parameters", "head.weight"),
    "head_bias_init=zeros": ("best_sgd", [], "initial parameters", "head.bias"),
    "stride_offset=end": ("best_sgd", [], "forward", "stages.1.blocks.0.conv1"),
    "bn_variance_correction=0": ("best_sgd", [], "running variance", "running_var"),
}


@pytest.mark.parametrize("inject", ROWS)
def test_each_framework_difference_is_named_by_its_first_quantity(inject):
    recipe, overrides, quantity, where = ROWS[inject]

    record = lockstep(recipe=recipe, overrides=overrides, inject=inject, steps=3)

    assert record["verdict"] == "diverges"
    assert record["first_divergence"]["quantity"] == quantity
    assert where in record["first_divergence"]["where"]


def test_unscaled_decay_departs_after_the_first_step():
    record = lockstep(
        recipe="best_adam",
        overrides=["schedule.unit=step"],
        inject="decay_scaled_by_lr=false",
        steps=3,
    )

    assert record["first_divergence"]["step"] == 2


SUBTLE = {
    "stages.1.blocks.0.bn1.bn_epsilon=1.001e-5": "best_sgd",
    "l2=5.01e-4": "best_sgd",
    "lr=0.1000000001": "best_sgd",
    f"momentum={MOMENTUM_FLOAT32}": "best_sgd",
    f"beta1={BETA1_FLOAT32}": "best_adam",
    f"beta2={BETA2_FLOAT32}": "best_adam",
}


@pytest.mark.parametrize("inject", SUBTLE)
def test_subtly_wrong_twins_are_caught(inject):
    record = lockstep(recipe=SUBTLE[inject], inject=inject, steps=3)

    assert record["verdict"] == "diverges"
    assert record["first_divergence"]["ratio"] > 10.0


def test_a_fault_in_one_layer_is_named_there():
    record = lockstep(inject="stages.1.blocks.0.bn1.bn_epsilon=1e-3", steps=1)

    assert record["first_divergence"]["quantity"] == "forward"
    assert record["first_divergence"]["where"].startswith("stages.1.blocks.0.bn1[")


def test_nets_that_hardly_depend_on_their_input_are_vacuous():
    record = lockstep(overrides=["conventions.head_weight_init=zeros"], steps=1)

    assert record["verdict"] == "vacuous"
    assert record["input_sensitivity"] == 0.0


class Tampered:
    """A net that reports one quantity wrong once it has trained; all else is the net's own."""

    FACTOR = 1.0 + 1e-9

    def __init__(self, net, quantity):
        self._net = net
        self._quantity = quantity
        self._has_trained = False

    def __getattr__(self, name):
        return getattr(self._net, name)

    def trace(self, images, *, training, masks):
        outputs = self._net.trace(images, training=training, masks=masks)
        wrong = self._quantity == ("training" if training else "evaluation")
        return {name: array * (self.FACTOR if wrong else 1.0) for name, array in outputs.items()}

    def step(self, batch, *, rate, position, with_gradients):
        record = self._net.step(batch, rate=rate, position=position, with_gradients=with_gradients)
        self._has_trained = True
        if self._quantity == "loss":
            return dataclasses.replace(record, loss=record.loss * self.FACTOR)
        if self._quantity == "gradients":
            gradients = {name: array * self.FACTOR for name, array in record.gradients.items()}
            return dataclasses.replace(record, gradients=gradients)
        return record

    def state(self):
        endings = {"running mean": "mean", "running variance": "var", "parameters": "weight"}
        ending = endings.get(self._quantity) if self._has_trained else None
        return {
            name: array * (self.FACTOR if ending and name.endswith(ending) else 1.0)
            for name, array in self._net.state().items()
        }

    def optimizer_state(self):
        state = self._net.optimizer_state()
        if self._quantity != "slots":
            return state
        slots = {
            slot: {name: array * self.FACTOR for name, array in arrays.items()}
            for slot, arrays in state.slots.items()
        }
        return dataclasses.replace(state, slots=slots)


@pytest.mark.parametrize(
    ("tampered", "named"),
    [
        ("training", "forward"),
        ("evaluation", "forward"),
        *((name, name) for name in ("loss", "gradients", "running mean", "running variance")),
        *((name, name) for name in ("slots", "parameters")),
    ],
)
def test_a_fault_in_one_quantity_alone_is_named(monkeypatch, tampered, named):
    build = pair.build_net
    nets = []

    def build_tampered(framework, *arguments, **options):
        nets.append(build("torch", *arguments, **options))
        return Tampered(nets[-1], tampered) if framework == "keras" else nets[-1]

    monkeypatch.setattr(pair, "build_net", build_tampered)

    record = lockstep(steps=2)

    assert record["first_divergence"]["quantity"] == named
    assert len(nets) == 2


def test_a_rule_that_both_nets_get_wrong_is_named(monkeypatch):
    build = pair.build_net

    def build_wrong(_framework, spec, recipe, settings, **options):
        optimizer = dataclasses.replace(recipe.optimizer, momentum=MOMENTUM_FLOAT32)
        wrong = dataclasses.replace(recipe, optimizer=optimizer)
        return build("torch", spec, wrong, settings, **options)

    monkeypatch.setattr(pair, "build_net", build_wrong)

    record = lockstep(steps=2)

    assert record["first_divergence"]["quantity"] == "update rule"
    assert record["first_divergence"]["step"] == 2


def test_a_free_run_is_equivalent_up_to_a_named_kink(monkeypatch):
    build = pair.build_net

    def build_tampered(framework, *arguments, **options):
        net = build("torch", *arguments, **options)
        return Tampered(net, "parameters") if framework == "keras" else net

    monkeypatch.setattr(pair, "build_net", build_tampered)
    monkeypatch.setattr(free, "_find_kink", lambda _pair, _before, event: f"kink {event.step + 1}")

    record = lockstep(steps=3, mode="free")

    assert record["notes"] == ["kink 1"]
    assert record["verdict"] == "numerically equivalent"
    assert record["reason"].endswith("up to a ReLU kink.")


@pytest.mark.parametrize(
    ("inject", "overrides"),
    [
        ("decay_scaled_by_lr=false", []),
        ("stats_decay=0.9", []),
        ("stride_offset=end", ["resolution=16"]),
    ],
    ids=["no-decay", "same-value", "even-maps"],
)
def test_an_exact_no_op_is_said_and_only_that(inject, overrides):
    record = lockstep(inject=inject, overrides=overrides, steps=1)

    is_no_op = "no-op" in record["reason"]
    assert is_no_op == (inject != "stride_offset=end")
    assert record["verdict"] == ("numerically equivalent" if is_no_op else "diverges")


@pytest.mark.parametrize("inject", [None, "orthogonalizes_in=own"])
def test_muon_in_bfloat16_is_not_compared(inject):
    recipe = resolve("best_sgd", data="digits", model=None, epochs=None, overrides=None)
    recipe = dataclasses.replace(
        recipe, optimizer=dataclasses.replace(MUON, orthogonalizes_in="bfloat16")
    )
    stream = open_stream(recipe, seed=0, folder=None, download=False)

    record = run_lockstep(recipe, LockstepSettings(steps=1), stream=stream, inject=inject)

    assert record["verdict"] == "not compared"
    assert record["reason"].endswith("--set optimizer.orthogonalizes_in=own.")


def test_free_running_twins_part_no_faster_than_rounding():
    record = lockstep(mode="free", steps=6)

    assert record["verdict"] == "numerically equivalent"
    assert all(0.0 < row["control"]["parameters"] < 1e-11 for row in record["rows"] if row["step"])


# Faults that the comparison must catch, whatever else it does; `decay_scaling_flipped` shows only
# once the rate has left its base.
@pytest.mark.parametrize(
    ("kwargs", "missed"),
    [
        ({"steps": 3}, set()),
        ({"steps": 3, "recipe": "best_adam"}, {"decay_scaling_flipped"}),
        (
            {"steps": 3, "recipe": "best_adam", "overrides": ["schedule.unit=step"]},
            set(),
        ),
        ({"steps": 4, "mode": "free"}, set()),
        ({"steps": 2, "dtype": "float32"}, set()),
    ],
    ids=["sgd", "adamw", "adamw-by-step", "free", "float32"],
)
def test_a_pass_says_which_wrong_twins_it_would_have_caught(kwargs, missed):
    record = lockstep(**kwargs)

    trials = record["detection_power"]
    assert {trial["fault"] for trial in trials if not trial["caught"]} == missed
    assert len(trials) >= 13
    assert record["input_sensitivity"] > 0.1


VECTORS = (
    "{members='vectors', lr_factor=2.0, decay_factor=0.0, trained_epochs=inf, schedule='shared'}"
)


def test_wrong_twins_of_clipping_groups_and_averages_are_named_by_their_field():
    record = lockstep(
        recipe="lookahead",
        steps=1,
        overrides=[
            "clipping={kind='global_norm', limit=1.0, epsilon=0.5}",
            f"groups=[{VECTORS}]",
        ],
    )

    changes = {trial["fault"]: trial["change"] for trial in record["detection_power"]}
    assert changes["clipping_removed"] == "clipping.kind=none"
    assert changes["clipping_scope_flipped"] == "clipping.kind=tensor_norm"
    assert changes["groups_removed"] == "groups=[]"
    assert changes["group_members_other"] == "groups[0].members=bias"
    assert changes["average_period_off"] == "averaging.every=6"


def test_a_first_step_says_nothing_of_momentum():
    record = lockstep(steps=1)

    missed = [trial["fault"] for trial in record["detection_power"] if not trial["caught"]]
    assert missed == ["momentum_through_float32"]


def test_a_comparison_that_catches_no_wrong_twin_is_vacuous(monkeypatch):
    monkeypatch.setattr(comparison, "measure_power", lambda _pair, _course: [])

    record = lockstep(steps=1)

    assert record["verdict"] == "vacuous"


@pytest.mark.parametrize("inject", ["stats_decay=0.99", "velocity_holds_lr=true"])
def test_a_free_run_catches_what_leaves_its_parameters_alone(inject):
    record = lockstep(mode="free", steps=2, inject=inject)

    assert record["verdict"] == "diverges"


def test_a_free_running_wrong_rate_is_no_kink():
    record = lockstep(mode="free", steps=6, inject="lr=0.10001")

    assert record["verdict"] == "diverges"
    assert record["first_divergence"]["quantity"] == "parameters"


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        pytest.param("best_adam", ["optimizer.l2=5e-4"], marks=pytest.mark.backend, id="adam-l2"),
        pytest.param(
            "rmsprop",
            ["clipping={kind='tensor_norm', limit=0.1, epsilon=0.0}"],
            id="rmsprop-clipped",
        ),
    ],
)
def test_float32_twins_whose_steps_are_normalized_follow_their_rule(recipe, overrides):
    record = lockstep(
        recipe=recipe, model="resnet8:width=8", overrides=overrides, dtype="float32", steps=2
    )

    assert record["verdict"] == "numerically equivalent", record["reason"]


def test_float32_twins_are_equivalent_by_their_noise():
    record = lockstep(dtype="float32", steps=2)

    assert record["verdict"] == "numerically equivalent", record["reason"]
    assert any("ReLU" in note for note in record["notes"])


@pytest.mark.parametrize(
    ("inject", "quantity"),
    [
        ("bn_epsilon=1e-3", "forward"),
        ("bn_variance_correction=0", "running variance"),
        ("l2=5.01e-4", "slots"),
    ],
)
def test_float32_faults_are_named(inject, quantity):
    record = lockstep(dtype="float32", steps=2, inject=inject)

    assert record["verdict"] == "diverges"
    assert record["first_divergence"]["quantity"] == quantity
