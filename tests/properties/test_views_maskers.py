"""Masks of whole views: which views are asked about which."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jepakit_views.views import Itself, Mean, Next, Pair

from jepakit import testing
from jepakit.types import Grid
from tests.properties.shared import quick

GLOBALS, LOCALS = st.integers(1, 5), st.integers(0, 6)


def drawn(masker: Pair | Mean | Next | Itself) -> list:
    return masker(Grid(1, 3, 3), 4, torch.Generator())


@pytest.mark.parametrize("masker", [Pair(), Pair(2, 6), Mean(4), Mean(2, 6), Next(), Next(3), Itself(), Itself(2)])
def test_contract(masker):
    testing.check_masker(masker, (*testing.IMAGE_GRIDS, *testing.CLIP_GRIDS, Grid(1, 1, 1)))


def test_a_pair_asks_both_ways():
    assert [(mask.context_view, mask.target_view) for mask in drawn(Pair())] == [(0, 1), (1, 0)]


def test_next_and_itself():
    assert [(mask.context_view, mask.target_view) for mask in drawn(Next(3))] == [(0, 1), (1, 2)]
    assert [(mask.context_view, mask.target_view) for mask in drawn(Itself(2))] == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="two views in all"):
        Next(1)
    with pytest.raises(ValueError, match="views=0: there must be one at least"):
        Itself(0)


@quick
@given(GLOBALS, LOCALS)
def test_pairs(views, local_views):
    if views + local_views < 2:
        return
    masks = drawn(Pair(views, local_views))
    asked = [(mask.context_view, mask.target_view) for mask in masks]
    assert len(set(asked)) == len(asked) == (views + local_views) * views - views
    assert {one for one, _ in asked} | {other for _, other in asked} == set(range(views + local_views))
    assert all(one != other and other < views for one, other in asked)
    assert all(mask.context is None and mask.target is None for mask in masks)


@quick
@given(GLOBALS, LOCALS)
def test_means(views, local_views):
    if views + local_views < 2:
        return
    masks = drawn(Mean(views, local_views))
    assert [mask.context_view for mask in masks] == list(range(views + local_views))
    assert {mask.target_view for mask in masks} == {tuple(range(views))}
    assert all(mask.context is None and mask.target is None for mask in masks)


@pytest.mark.parametrize("masker", [Pair, Mean])
@pytest.mark.parametrize(("views", "local_views"), [(0, 2), (1, 0), (2, -1)])
def test_too_few_views(masker, views, local_views):
    with pytest.raises(ValueError, match=f"views={views}, local_views={local_views}: there must be a global view"):
        masker(views, local_views)
