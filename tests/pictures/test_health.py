"""The picture of a verdict."""

import json

import matplotlib.image
import pytest
from matplotlib.figure import Figure

from jepakit.health.entry import examine
from jepakit.pictures.health import PANELS, health
from tests.health.test_command import GONE, HEALTHY


def drawn(tmp_path, lines, monkeypatch):
    """Its axes by title, and its title."""
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    kept, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: kept.append(self) or save(self, *a, **k))
    out = health(examine(tmp_path, {}), tmp_path / "pictures" / "health.png")
    assert matplotlib.image.imread(out).std() > 0.03
    return {axis.get_title(loc="left"): axis for axis in kept[0].axes if axis.axison}, kept[0]._suptitle.get_text()


def test_thresholds_and_where_the_verdict_changed(tmp_path, monkeypatch):
    axes, title = drawn(tmp_path, GONE, monkeypatch)
    assert title.startswith("collapsing: all samples") and "likely cause: EMA too fast" in title
    assert set(axes) < {panel.title for panel in PANELS} and "pixels of two samples" not in axes
    spread = axes["spread of samples (std)"]
    levels = [each.get_ydata()[0] for each in spread.lines if each.get_label() == "lost below"]
    assert levels == [pytest.approx(0.33 * 0.5)]
    shades = [each.get_x() for each in spread.patches]
    assert 7 in shades, "the step from which it was collapsing"


def test_rollbacks_and_healthy_stretches(tmp_path, monkeypatch):
    back = {"step": 5, "rollback": 1, "rolled_back_from": 12, "lr_scale": 0.5, "reason": "."}
    axes, title = drawn(tmp_path, [*GONE, back, *HEALTHY[5:]], monkeypatch)
    assert title.startswith("healthy")
    loss = axes["loss"]
    assert not loss.patches, "what it was rolled back from is not shaded"
    assert [each.get_xdata()[0] for each in loss.lines if len(each.get_xdata()) == 2] == [5]


def test_a_log_of_one_old_line(tmp_path, monkeypatch):
    axes, title = drawn(tmp_path, [{"step": 1, "loss": 1.0, "rank": 9.0, "std": 0.5}], monkeypatch)
    assert set(axes) == {"loss", "spread of samples (std)", "effective rank"} and title.startswith("healthy")
