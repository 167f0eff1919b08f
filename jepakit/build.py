"""From a resolved configuration to a model, read top to bottom. What cannot work is refused here, with the reason."""

import contextlib
import inspect
import itertools
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jepakit import seeds
from jepakit.branches import branches, owner, told
from jepakit.compose import Together
from jepakit.data.colour import How
from jepakit.data.views import alone
from jepakit.distance import distance
from jepakit.errors import ConfigError, first_line
from jepakit.jepa import Backbone, Branched, Jepa
from jepakit.kernels import fit
from jepakit.plugins import discover
from jepakit.protocols import Masker
from jepakit.signature import given
from jepakit.testing import check_mask
from jepakit.types import Grid, Mask, to_device

WRONG = (ValueError, TypeError, RuntimeError, AssertionError, AttributeError, LookupError, ArithmeticError)
"""What a component may raise against what it is given."""

DRAWS = 32
"""Masks that are tried before training: some maskers find no room only now and then."""

LEARNED = ("predictor", "anti_collapse")
"""Parts of a figure that branches share or have for themselves; the backbone they share."""


class Figure(NamedTuple):
    """A branch: its figure, the masker that asks it questions, the grid of tokens that views are cut into, how many
    views of a sample the masker asks for, and whether it hides tokens from the encoder."""

    jepa: Jepa
    masker: Masker
    grid: Grid
    views: int
    hides: bool


class Built(NamedTuple):
    """What is trained and kept, and the figure of each branch in it; without branches they are one, without a name."""

    jepa: Jepa | Branched
    figures: dict[str, Figure]

    @property
    def masker(self) -> Masker:
        """That of the first branch."""
        return next(iter(self.figures.values())).masker

    @property
    def grid(self) -> Grid:
        """That of the first branch."""
        return next(iter(self.figures.values())).grid


def build(config: Mapping[str, Any], steps: int = 1, batch_ratio: float = 1.0) -> Built:
    """Make every part, join them, and rehearse one step without computing anything.

    Args:
        config: resolved, as in a run's ``config.yaml``.
        steps: optimiser steps of the whole run, which a teacher's schedule depends on.
        batch_ratio: samples a step over those that the configuration is stated for.

    Raises:
        ConfigError: where a part refuses its arguments, or parts do not fit together.
    """
    figures, owners, made = {}, {}, {}
    with drawn(config):
        backbone, _ = _backbone(config)
        for name, each in branches(config).items():
            owners[name] = {part: owner(config, name, part) for part in LEARNED}
            with told(name):
                figures[name] = _figure(each, backbone, owners[name], made, (steps, batch_ratio))
    if "" in figures:
        return Built(figures[""].jepa, figures)
    own = {name: [part for part in LEARNED if parts[part] == name] for name, parts in owners.items()}
    return Built(Branched({name: figure.jepa for name, figure in figures.items()}, own), figures)


def _figure(
    config: Mapping[str, Any], backbone: Backbone, owners: Mapping[str, str], made: dict, length: tuple[int, float]
) -> Figure:
    """A branch. Parts of one owner are made once. ``length``: steps of the run, and the batch's ratio."""
    shape, (steps, ratio) = seen_shape(config), length
    grid = refuse(f"tokenizer {config['tokenizer']['name']!r}", backbone.tokenizer.grid, *shape[1:])
    known = {"channels": shape[0], "encoder_width": backbone.width, "grid": grid, "view_shape": shape}
    known |= {"batch_ratio": ratio, "encoder_widths": getattr(backbone.encoder, "widths", (backbone.width,))}
    known |= {"pixel_mean": tuple(config["data"]["mean"]), "pixel_std": tuple(config["data"]["std"])}

    def part(kind: str, create: Callable[[], Any]) -> Any:
        if (whose := (owners[kind], kind)) not in made:
            made[whose] = create()
        return made[whose]

    def prepared() -> Together:
        strategies = {name: make("anti_collapse", node, **known) for name, node in config["anti_collapse"].items()}
        anti_collapse = Together(strategies)
        refuse("anti_collapse", anti_collapse.prepare, backbone, steps)
        return anti_collapse

    anti_collapse = part("anti_collapse", prepared)
    known["target_width"] = anti_collapse.width(backbone)
    predictor = part("predictor", lambda: make("predictor", config["predictor"], **known))
    masker = make("masker", config["masker"], **known)
    scales = config.get("distance_weight", 1.0), config.get("distance_levels")
    jepa = Jepa(backbone, predictor, anti_collapse, distance(config["distance"], *scales))
    batch = config["data"]["batch_size"]
    masks = draw(masker, config["masker"]["name"], grid, batch)
    views = 1 + max(view for mask in masks for view in _views(mask))
    shapes = [*view_shapes(config, backbone), *[shape] * views][:views]  # a view too few is refused with the data
    _refuse_other_grids(config, masks, shapes)
    rehearse(jepa, config, masks, [torch.empty((batch, *each), device="meta") for each in shapes])
    return Figure(jepa, masker, grid, views, hides=any(mask.context is not None for mask in masks))


def build_backbone(config: Mapping[str, Any]) -> tuple[Backbone, Grid]:
    """The backbone alone, as it is before training: what a random encoder's scores are those of."""
    with drawn(config):
        return _backbone(config)


@contextlib.contextmanager
def drawn(config: Mapping[str, Any]) -> Iterator[None]:
    """Initial weights are drawn from the run's seed, and the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.key(config["seed"], "init"))
        yield


def view_shape(data: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """``C T H W`` of a view."""
    return len(data["mean"]), data.get("frames", 1), data["size"], data["size"]


def seen_shape(config: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """``C T H W`` of a view of ``data.size``: of one frame where all views look at single frames of a clip."""
    return view_shape({**config["data"], "frames": 1} if alone(config) else config["data"])


def view_shapes(config: Mapping[str, Any], backbone: Backbone) -> list[tuple[int, int, int, int]]:
    """``C T H W`` of each view of a sample, in order. Raises ConfigError for a size that cannot be cut into tokens."""
    data, found = config["data"], []
    for name, view in (config.get("views") or {"": {"size": None, "count": 1}}).items():
        single = {} if view.get("frame") is None else {"frames": 1}  # an old run's views have no such key
        shape = view_shape({**data, "size": view["size"] or data["size"], **single})
        who = f"views.{name}.size={shape[-1]}: tokenizer {config['tokenizer']['name']!r}"
        refuse(who, backbone.tokenizer.grid, *shape[1:])
        found += [shape] * view["count"]
    return found


def _refuse_other_grids(config: Mapping[str, Any], masks: list[Mask], shapes: list[tuple[int, int, int, int]]) -> None:
    """A masker chooses tokens of the grid of ``data.size``; views of other sizes can only be asked for as a whole."""
    size = config["data"]["size"]
    for mask in masks:
        context, *targets = _views(mask)
        chosen = [context] * (mask.context is not None) + targets * (mask.target is not None)
        if other := [shapes[view][-1] for view in chosen if shapes[view][-1] != size]:
            who = f"masker {config['masker']['name']!r} chooses tokens of views of data.size={size}"
            raise ConfigError(f"{who}, and a view of its masks has size {other[0]} (views.*.size)")


def _backbone(config: Mapping[str, Any]) -> tuple[Backbone, Grid]:
    channels, *clip = view_shape(config["data"])
    encoder = make("encoder", config["encoder"], channels=channels)
    width = refuse(f"encoder {config['encoder']['name']!r}", getattr, encoder, "width")
    tokenizer = make("tokenizer", config["tokenizer"], channels=channels, encoder_width=width)
    grid = refuse(f"tokenizer {config['tokenizer']['name']!r}", tokenizer.grid, *clip)
    return Backbone(tokenizer, encoder), grid


def make(kind: str, node: Mapping[str, Any], **supplied: Any) -> Any:
    """A component from its node of the configuration, and from what it asks of ``supplied`` by name."""
    component = discover().get(kind, node["name"])
    factory = component.load()
    arguments = given(component, {name: value for name, value in node.items() if name != "name"})
    wanted = inspect.signature(factory).parameters
    arguments |= {name: value for name, value in supplied.items() if name in wanted}
    made = refuse(f"{kind} {node['name']!r}", factory, **arguments)
    return fit(made) if isinstance(made, nn.Module) else made


def refuse(who: str, call: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a component; the reason it gives against its arguments becomes one clear line."""
    try:
        return call(*args, **kwargs)
    except WRONG as error:
        raise ConfigError(f"{who}: {first_line(error)}") from error


def ask(who: str, masker: Masker, grid: Grid, batch_size: int, rng: torch.Generator, step: int = 0) -> list[Mask]:
    """A masker's questions; one that has a schedule is told the ``step`` of the run."""
    told = {"step": step} if "step" in inspect.signature(masker).parameters else {}
    return refuse(who, masker, grid, batch_size, rng, **told)


def draw(masker: Masker, name: str, grid: Grid, batch: int) -> list[Mask]:
    """Masks for a batch; these and some more are held to the masker's contract."""
    who = f"masker {name!r}"
    for number in reversed(range(DRAWS)):
        samples = min(batch, 8) if number else batch
        masks = ask(who, masker, grid, samples, seeds.generator("rehearsal", number))
        try:
            assert isinstance(masks, list) and masks, "it returns no list of one mask or more"
            for mask in masks:
                check_mask(mask, grid, samples, overlaps=getattr(masker, "overlaps", False))
        except (AssertionError, AttributeError) as error:
            raise ConfigError(f"{who} breaks its contract: {first_line(error)}") from error
    return masks


def rehearse(jepa: Jepa, config: Mapping[str, Any], masks: list[Mask], views: list[Tensor]) -> None:
    """One step on tensors that have a shape and no content: costs nothing, and finds parts that do not fit."""
    state = itertools.chain(jepa.named_parameters(), jepa.named_buffers())
    condition = [torch.empty(len(view), len(How._fields), device="meta") for view in views]
    weights = {name: value.to("meta") for name, value in state}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Using a target size")  # guess and truth of different shapes
            torch.func.functional_call(jepa, weights, (views, to_device(masks, "meta"), condition))
    except (*WRONG, UserWarning) as error:
        if isinstance(error, NotImplementedError) or "meta" in str(error):
            return  # an operation that needs content: the first real step will tell
        raise ConfigError(f"{_blame(error, jepa, config)}: {first_line(error)}") from error


def _blame(error: BaseException, jepa: Jepa, config: Mapping[str, Any]) -> str:
    """The component in which an error arose, innermost of all, and those that it had to work with."""
    names = {kind: f"{kind} {config[kind]['name']!r}" for kind in ("masker", "tokenizer", "encoder", "predictor")}
    names["anti_collapse"] = f"anti_collapse {' + '.join(config['anti_collapse']) or '(none)'}"
    parts = {id(jepa.predictor): "predictor", id(jepa.anti_collapse): "anti_collapse"}
    for backbone in (jepa.backbone, jepa.target_backbone):
        parts |= {id(getattr(backbone, kind, None)): kind for kind in ("tokenizer", "encoder")}
    frames = [id(frame.f_locals.get("self", parts)) for frame, _ in traceback.walk_tb(error.__traceback__)]
    guilty = names.pop(next((parts[frame] for frame in reversed(frames) if frame in parts), ""), None)
    others = ", ".join(names.values())
    return f"{guilty} does not go with {others}" if guilty else f"these parts do not go together ({others})"


def _views(mask: Mask) -> tuple[int, ...]:
    return (mask.context_view, *mask.target_views)


def parameters(module: nn.Module) -> int:
    """How many numbers are trained in a module."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
