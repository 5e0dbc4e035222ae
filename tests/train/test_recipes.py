"""Recipes: settings of a data set reach both trainings, and nothing else changes."""

from __future__ import annotations

import pytest

from nodebits.core.errors import UnknownNameError
from nodebits.train import find_recipe


def test_a_data_sets_decay_replaces_only_the_decay() -> None:
    usual, special = find_recipe("gcn", "node", "Cora"), find_recipe("gcn", "node", "Coauthor-CS")
    assert special.quantized_fit.weight_decay == 0.0 < special.float_fit.weight_decay
    decay = usual.float_fit.weight_decay
    assert special.float_fit.replace(weight_decay=decay) == usual.float_fit
    assert special.quantized_fit.replace(weight_decay=decay) == usual.quantized_fit
    assert (special.hidden, special.dropout) == (usual.hidden, usual.dropout)


def test_agnn_drops_less_on_amazon() -> None:
    usual, special = find_recipe("agnn", "node"), find_recipe("agnn", "node", "Amazon-Computers")
    assert special.dropout < usual.dropout and special.float_fit == usual.float_fit


def test_a_data_sets_epochs_reach_both_trainings() -> None:
    short, usual = find_recipe("gcn", "node", "digits"), find_recipe("gcn", "node")
    assert short.float_fit.epochs == short.quantized_fit.epochs < usual.float_fit.epochs


@pytest.mark.parametrize("model", ["gcn", "gat", "gin", "agnn"])
def test_graph_models_go_on_slower_where_float_weights_are_near(model: str) -> None:
    recipe = find_recipe(model, "graph")
    first, second = recipe.float_fit, recipe.quantized_fit
    assert second.lr < first.lr and second.replace(lr=first.lr) == first
    assert recipe.second_fit(8) == recipe.second_fit(3) == second
    assert recipe.second_fit(2).lr == recipe.second_fit(8, warm=False).lr == first.lr


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"gnc.*gcn"):
        find_recipe("gnc", "node")
