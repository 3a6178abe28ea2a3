import dataclasses
import json
import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import RecipeError
from parity.spec.conventions import KERAS, TORCH
from parity.spec.optimizers import Adam, LookaheadEma, NormClipping, Sgd, Update
from parity.spec.recipe import (
    DATA_KEYS,
    RECIPE_FOLDER,
    apply_overrides,
    build_recipe,
    load_recipe,
    read_toml,
    recipe_names,
    resolve_recipe,
)
from parity.spec.tables import describe_wrong_type
from parity.testing.updates import UNDECAYED_VECTORS, UPDATES

BEST_SGD = (RECIPE_FOLDER / "best_sgd.toml").read_text(encoding="utf-8")
ON_DIGITS = load_recipe("best_sgd", data="digits")
# Another allowed value of every leaf of a resolved recipe, where one leaf may change alone.
OTHER_VALUES = {
    "name": "other",
    "data": "synthetic",
    "model": "resnet20",
    "resolution": 16,
    "epochs": 31,
    "batch_size": 65,
    "drop_last": True,
    "sampling": "with_replacement",
    "conventions.conv_bias": True,
    "conventions.stats_decay": 0.99,
    "conventions.bn_variance_correction": 0,
    "conventions.bn_epsilon": 1e-3,
    "conventions.conv_init": "glorot_uniform",
    "conventions.head_weight_init": "glorot_uniform",
    "conventions.head_bias_init": "zeros",
    "conventions.stride_offset": "end",
    "augment.crop_px": 2,
    "augment.crop_padding": "reflect",
    "augment.flip": "alternating",
    "augment.cutout_px": 2,
    "loss.label_smoothing": 0.1,
    "loss.reduction": "sum",
    "optimizer.lr": 0.2,
    "optimizer.momentum": 0.8,
    "optimizer.nesterov": True,
    "optimizer.l2": 0.0,
    "optimizer.decoupled_decay": 0.1,
    "optimizer.decay_scaled_by_lr": False,
    "optimizer.velocity_holds_lr": True,
    "optimizer.dampening": 0.1,
    "optimizer.l2_in_loss": True,
    "groups": [
        {
            "members": "norm",
            "lr_factor": 2.0,
            "decay_factor": 0.0,
            "trained_epochs": math.inf,
            "schedule": "shared",
        }
    ],
    "schedule.kind": "linear",
    "schedule.unit": "step",
    "schedule.warmup": "overlay",
    "schedule.warmup_epochs": 1.0,
    "schedule.warmup_start_factor": 0.1,
    "schedule.warmup_first_step": "start_factor",
    "schedule.warmup_last_step": "one",
    "schedule.final_factor": 0.1,
    "evaluation.every_epochs": 2,
    "evaluation.batch_size": 250,
    "evaluation.tta_level": 2,
}
UNDECAYED = (
    "{members='vectors', lr_factor=1.0, decay_factor=0.0, trained_epochs=inf, schedule='shared'}"
)
KINDS = {
    "loss.kind",
    "optimizer.kind",
    "clipping.kind",
    "averaging.kind",
}  # another kind brings other keys


def leaf_keys(table, prefix=""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaf_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def with_leaf(table, key, value):
    head, _, rest = key.partition(".")
    return table | {head: with_leaf(table[head], rest, value) if rest else value}


def without_leaf(table, key):
    head, _, rest = key.partition(".")
    if rest:
        return table | {head: without_leaf(table[head], rest)}
    return {name: value for name, value in table.items() if name != head}


def resolve(table, *, data="digits", overrides=()):
    return resolve_recipe(table, where="mine.toml", data=data, overrides=overrides)


def source_table():
    return tomllib.loads(BEST_SGD)


RESOLVED_KEYS = tuple(leaf_keys(ON_DIGITS.to_table()))
SOURCE_KEYS = tuple(key for key in leaf_keys(source_table()) if not key.startswith("data."))


def test_recipes_ship_with_the_toolkit():
    assert {"best_adam", "best_sgd"} <= set(recipe_names())


def test_best_sgd_is_the_published_training_on_cifar10():
    recipe = load_recipe("best_sgd", data="cifar10")

    assert (recipe.model, recipe.epochs, recipe.batch_size) == ("resnet18", 200, 128)
    assert recipe.conventions == TORCH.conventions
    assert recipe.optimizer == Sgd(
        lr=0.1,
        momentum=0.9,
        dampening=0.0,
        nesterov=False,
        l2=5e-4,
        l2_in_loss=False,
        decoupled_decay=0.0,
        decay_scaled_by_lr=True,
        velocity_holds_lr=False,
    )


def test_best_adam_builds_adam():
    assert isinstance(load_recipe("best_adam", data="cifar10").optimizer, Adam)


def test_data_table_wins_over_the_top_level_and_leaves_the_rest():
    assert (ON_DIGITS.model, ON_DIGITS.epochs, ON_DIGITS.batch_size) == ("resnet8", 30, 64)
    assert (ON_DIGITS.augment.crop_px, ON_DIGITS.augment.flip) == (1, "none")
    assert ON_DIGITS.optimizer.lr == 0.1


def test_data_table_may_change_part_of_a_table():
    recipe = load_recipe("best_sgd", data="fashion_mnist")

    assert (recipe.augment.crop_px, recipe.augment.flip) == (1, "random")


def test_data_set_without_a_table_takes_the_top_level():
    recipe = load_recipe("best_sgd", data="somewhere_else")

    assert (recipe.data, recipe.model) == ("somewhere_else", "resnet18")


def test_override_wins_over_the_data_table():
    recipe = load_recipe("best_sgd", data="digits", overrides=["epochs=3", "augment.crop_px=0"])

    assert (recipe.epochs, recipe.augment.crop_px) == (3, 0)


def test_last_override_of_a_key_wins():
    assert load_recipe("best_sgd", data="digits", overrides=["epochs=3", "epochs=4"]).epochs == 4


@pytest.mark.parametrize("text", ["model=resnet20", "model='resnet20'", ' model = "resnet20" '])
def test_override_reads_a_string_with_and_without_quotes(text):
    assert load_recipe("best_sgd", data="digits", overrides=[text]).model == "resnet20"


@pytest.mark.parametrize(("name", "preset"), [("torch", TORCH), ("keras", KERAS)])
def test_preset_override_sets_conventions_and_optimizer_forms(name, preset):
    recipe = load_recipe("best_sgd", data="digits", overrides=[f"preset={name}"])

    assert recipe.conventions == preset.conventions
    assert recipe.optimizer.velocity_holds_lr == preset.velocity_holds_lr
    assert recipe.optimizer.decay_scaled_by_lr == preset.decay_scaled_by_lr
    assert (recipe.optimizer.lr, recipe.optimizer.momentum) == (0.1, 0.9)


def test_preset_override_sets_only_the_forms_the_optimizer_has():
    recipe = load_recipe("best_adam", data="digits", overrides=["preset=keras"])

    assert recipe.optimizer.epsilon_placement == "uncorrected"


def test_overrides_of_a_resolved_recipe_are_those_of_loading_it():
    overrides = ["preset=keras", "optimizer.lr=0.5", "epochs=2"]

    changed = apply_overrides(ON_DIGITS, overrides)

    assert changed == load_recipe("best_sgd", data="digits", overrides=overrides)


def test_override_of_a_resolved_recipe_names_the_recipe():
    with pytest.raises(RecipeError, match=r"^best_sgd: epochs must be >= 1 and finite; got 0"):
        apply_overrides(ON_DIGITS, ["epochs=0"])


def test_override_leaves_the_table_it_was_given():
    table = source_table()

    resolve(table, overrides=["optimizer.lr=0.5", "preset=keras"])

    assert table == source_table()


def test_override_may_replace_a_table_by_one_of_another_kind():
    recipe = resolve(
        source_table(),
        overrides=[
            "clipping={kind='global_norm', limit=1.0, epsilon=1e-6}",
            "averaging={kind='lookahead_ema', every=5, decay=0.9, power=3.0}",
            f"groups=[{UNDECAYED}]",
            "averaging.every=4",
        ],
    )

    assert recipe.update == Update(
        rule=recipe.optimizer,
        groups=(UNDECAYED_VECTORS,),
        clipping=NormClipping(kind="global_norm", limit=1.0, epsilon=1e-6),
        averaging=LookaheadEma(every=4, decay=0.9, power=3.0),
    )


KILOSTEP = (
    "optimizer={kind='sgd_kilostep', lr_per_kilostep=11.5, decay_per_kilostep=0.0153, "
    "momentum=0.85, nesterov=true, velocity_holds_lr=false, l2_in_loss=false}"
)


def test_rule_of_a_kilostep_recipe_follows_the_batch_size():
    whole, half = (
        load_recipe("best_sgd", data="digits", overrides=[KILOSTEP, f"batch_size={size}"])
        for size in (1024, 512)
    )

    assert whole.update.rule.lr == half.update.rule.lr == pytest.approx(11.5 * 0.15 / (1024 * 1.15))
    assert whole.update.rule.l2 == 2.0 * half.update.rule.l2 == pytest.approx(0.0153 * 1024 / 11.5)


def test_kilostep_recipe_is_stored_as_it_was_stated():
    recipe = load_recipe("best_sgd", data="digits", overrides=[KILOSTEP])
    stored = json.loads(json.dumps(recipe.to_table()))

    assert stored["optimizer"]["lr_per_kilostep"] == 11.5
    assert "lr" not in stored["optimizer"]
    assert build_recipe(stored, where="run.json") == recipe


def test_override_of_a_kilostep_recipe_names_its_own_keys():
    changed = apply_overrides(ON_DIGITS, [KILOSTEP, "optimizer.lr_per_kilostep=9.0"])

    assert changed.optimizer.lr_per_kilostep == 9.0
    with pytest.raises(RecipeError, match=r"'optimizer\.lr' not found.*lr is a key of sgd, lars"):
        apply_overrides(changed, ["optimizer.lr=0.1"])


@pytest.mark.parametrize("preset", ["torch", "keras"])
def test_preset_sets_the_forms_of_a_kilostep_recipe(preset):
    recipe = apply_overrides(ON_DIGITS, [KILOSTEP, f"preset={preset}"])

    assert recipe.update.rule.velocity_holds_lr == (preset == "keras")
    assert recipe.update.rule.l2_in_loss == (preset == "keras")


@pytest.mark.parametrize("name", UPDATES)
def test_recipe_with_any_update_is_rebuilt_from_its_table(name):
    update = UPDATES[name]
    recipe = dataclasses.replace(
        ON_DIGITS,
        optimizer=update.rule,
        groups=update.groups,
        clipping=update.clipping,
        averaging=update.averaging,
    )

    stored = json.loads(json.dumps(recipe.to_table()))

    assert build_recipe(stored, where="stored") == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "expected key=value, such as optimizer.lr=0.05"),
        ("optimizer.lrs=1.0", r"'optimizer.lrs' not found\. Nearest: optimizer.lr\."),
        ("optimizer=sgd", "optimizer is a table. Set one of its keys, such as optimizer.kind, or"),
        ("conventions={}", r"conventions is a table\. .*such as conventions\.conv_bias\.$"),
        ("clipping={kind='value'}", r"1 key missing \(clipping\.limit\)"),
        ("averaging={kind='mean'}", "averaging.kind must be one of none, ema"),
        (
            "clipping={kind=value, limit=1.0}",
            r"expected TOML such as clipping=.* Quote",
        ),
        (
            "clipping.limit=1.0",
            r"kind is 'none'; limit is a key of global_norm, tensor_norm, value\. Replace",
        ),
        ("optimizer.beta3=0.9", r"'optimizer.beta3' not found\. (Nearest|Known): "),
        ("groups=norm", r"groups must be a list of tables, \[\] for none; got 'norm'"),
        ("groups=[{members='norms'}]", r"4 keys missing \(groups\[0\]\.lr_factor, "),
        (
            f"groups=[{UNDECAYED.replace('vectors', 'norms')}]",
            r"groups\[0\]\.members must be one of 'vectors', .*; got 'norms'",
        ),
        ("optimizer.lr.base=1.0", "'optimizer.lr.base' not found"),
        ("name=mine", "'name' not found"),
        ("data=cifar10", "'data' not found"),
        ("preset=kears", r"preset 'kears' not found\. Nearest: keras\."),
        ("optimizer.lr=1", r"optimizer.lr must be a float; got 1 \(int\)\. Write 1\.0\."),
        ("optimizer.lr=fast", r"optimizer.lr must be a float; got 'fast' \(str\)"),
        ("drop_last=1", r"drop_last must be a bool; got 1 \(int\)"),
        ("epochs=2.0", r"epochs must be an int where it is whole; got 2\.0\. Write 2\.$"),
        ("epochs=all", r"epochs must be an int or a float; got 'all' \(str\)"),
        ("epochs=true", r"epochs must be an int or a float; got True \(bool\)"),
        ("epochs=0", "epochs must be >= 1 and finite; got 0"),
        ("epochs=0.5", r"epochs must be >= 1 and finite; got 0\.5"),
        ("epochs=nan", "epochs must be >= 1 and finite; got nan"),
        ("epochs=inf", "epochs must be >= 1 and finite; got inf"),
        ("sampling=shuffled", "sampling must be one of 'reshuffled', .*; got 'shuffled'"),
        ("optimizer.momentum=1.5", r"optimizer: momentum must be in \[0, 1\); got 1.5"),
        ("schedule.kind=step", "schedule.kind must be one of constant, .*; got 'step'"),
        ("schedule.kind=multistep", r"keys missing \(schedule.milestones, schedule.gamma"),
        ("schedule.warmup_epochs=0.5", "schedule: warmup_epochs must be whole .*; got 0.5"),
        ("conventions.bn_variance_correction=true", "must be one of 0, 1; got True"),
        (
            "optimizer.kind=lion",
            "optimizer.kind must be one of sgd, lars, muon, adam, .*; got 'lion'",
        ),
        ("optimizer.kind=adam", r"keys missing \(optimizer.beta1, optimizer.beta2"),
        ("augment.crop_px=-1", "augment.crop_px must be >= 0; got -1"),
        ("augment.cutout_px=-1", "augment.cutout_px must be >= 0; got -1"),
        ("augment.crop_padding=edge", "crop_padding must be one of 'zeros', 'reflect'; got 'edge'"),
        ("augment.flip=true", "augment.flip must be one of 'none', .*; got True"),
        ("evaluation.tta_level=3", "evaluation.tta_level must be one of 0, 1, 2; got 3"),
        ("evaluation.tta_level=true", "evaluation.tta_level must be one of 0, 1, 2; got True"),
        ("evaluation.batch_size=0", "evaluation.batch_size must be >= 1; got 0"),
        ("resolution=-1", "resolution must be >= 0; got -1"),
    ],
)
def test_override_is_refused_with_the_reason(override, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("best_sgd", data="digits", overrides=[override])


def test_unknown_recipe_offers_the_nearest():
    with pytest.raises(RecipeError, match=r"'best_sdg' not found\. Nearest: best_sgd\."):
        load_recipe("best_sdg", data="digits")


def test_recipe_is_read_from_a_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(BEST_SGD.replace("epochs = 30", "epochs = 7"), encoding="utf-8")

    assert load_recipe(str(path), data="digits").epochs == 7


def test_recipe_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="not found"):
        load_recipe(str(tmp_path / "none.toml"), data="digits")


@pytest.mark.parametrize("content", [b"epochs = = 3", b"name = '\xff'"], ids=["syntax", "encoding"])
def test_file_that_is_no_toml_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)

    with pytest.raises(RecipeError, match=r"broken\.toml: expected TOML"):
        read_toml(path)


@pytest.mark.parametrize("key", SOURCE_KEYS)
def test_recipe_without_a_key_is_refused_by_its_name(key):
    with pytest.raises(RecipeError, match=rf"mine\.toml: .*\b{key}\b"):
        resolve(without_leaf(source_table(), key))


def test_missing_keys_are_listed_together():
    table = without_leaf(without_leaf(source_table(), "model"), "epochs")

    with pytest.raises(RecipeError, match=r"2 keys missing \(model, epochs\)"):
        resolve(table)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epoch", "Nearest: epochs"),
        ("optimizer.weight_decay", "optimizer.weight_decay"),
        ("augment.crop", r"Nearest: crop_px"),
        ("data.digits.model_name", r"data\.digits\.model_name"),
        ("data.digits.optimizer", r"data\.digits\.optimizer"),
    ],
)
def test_unknown_key_is_refused_by_its_name(key, hint):
    with pytest.raises(RecipeError, match=rf"mine\.toml: 1 unknown key\..*{hint}"):
        resolve(with_leaf(source_table(), key, 1))


@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_data_tables_are_checked_whichever_data_set_is_asked_for(data):
    with pytest.raises(RecipeError, match=r"data\.synthetic\.momentum"):
        resolve(with_leaf(source_table(), "data.synthetic.momentum", 0.9), data=data)


@pytest.mark.parametrize(
    "key", ["augment", "conventions", "schedule", "evaluation", "loss", "optimizer"]
)
def test_value_in_place_of_a_table_is_refused(key):
    with pytest.raises(RecipeError, match=rf"mine\.toml: {key}"):
        resolve(source_table() | {key: 3})


@pytest.mark.parametrize("key", ["data", "data.digits"])
def test_value_in_place_of_a_data_table_is_refused(key):
    with pytest.raises(RecipeError, match=rf"mine\.toml: {key} must be a table; got 3"):
        resolve(with_leaf(source_table(), key, 3))


def test_wrong_types_are_listed_together():
    table = with_leaf(with_leaf(source_table(), "optimizer.lr", 1), "optimizer.l2", 0)

    with pytest.raises(RecipeError, match=r"optimizer\.lr must be .* optimizer\.l2 must be"):
        resolve(table)


def test_data_keys_are_fields_of_a_recipe():
    assert set(DATA_KEYS) <= {key.partition(".")[0] for key in RESOLVED_KEYS}


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_stored_recipe_rebuilds_equal(name, data):
    recipe = load_recipe(name, data=data, overrides=["preset=keras"])
    stored = json.loads(json.dumps(recipe.to_table()))

    rebuilt = build_recipe(stored, where="run.json")

    assert rebuilt == recipe
    assert rebuilt.digest() == recipe.digest()


def multistep_table(milestones):
    schedule = {
        key: value for key, value in source_table()["schedule"].items() if "final" not in key
    }
    shape = {
        "kind": "multistep",
        "milestones": milestones,
        "gamma": 0.1,
        "drops": "at_milestone",
    }
    return source_table() | {"schedule": schedule | shape}


def test_list_of_a_recipe_is_stored_as_a_list_and_rebuilds_equal():
    recipe = resolve(multistep_table([100, 150]))

    stored = recipe.to_table()

    assert recipe.schedule.milestones == (100, 150)
    assert stored["schedule"]["milestones"] == [100, 150]
    assert build_recipe(stored, where="run.json") == recipe


@pytest.mark.parametrize("milestones", [100, [100, 150.0], [True], "100"], ids=repr)
def test_list_of_the_wrong_type_is_refused(milestones):
    with pytest.raises(RecipeError, match=r"schedule\.milestones must be a list of int; got"):
        resolve(multistep_table(milestones))


def test_override_replaces_a_list():
    recipe = resolve(multistep_table([100, 150]), overrides=["schedule.milestones=[7]"])

    assert recipe.schedule.milestones == (7,)


def test_every_leaf_has_another_value_here():
    assert set(RESOLVED_KEYS) == set(OTHER_VALUES) | KINDS


@pytest.mark.parametrize("key", OTHER_VALUES)
def test_digest_changes_with_every_leaf(key):
    changed = build_recipe(with_leaf(ON_DIGITS.to_table(), key, OTHER_VALUES[key]), where="changed")

    assert changed.digest() != ON_DIGITS.digest()


def test_digest_is_the_same_however_a_value_was_set():
    overridden = load_recipe("best_sgd", data="digits", overrides=["epochs=30", "model=resnet8"])

    assert overridden.digest() == ON_DIGITS.digest()


@given(lr=st.floats(0.0, 1e3))
def test_override_of_a_float_keeps_every_bit(lr):
    recipe = resolve(source_table(), overrides=[f"optimizer.lr={lr!r}"])

    assert recipe.optimizer.lr == lr


def test_resolved_recipe_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ON_DIGITS.epochs = 1


@pytest.mark.parametrize(
    ("value", "hint", "is_wrong"),
    [(1, int, False), (True, int, True), (1.0, float, False), (1, float, True), ("a", str, False)],
)
def test_type_check_takes_no_type_for_another(value, hint, is_wrong):
    assert bool(describe_wrong_type("key", value, hint)) == is_wrong
