"""Why is a run not well, most likely? Each cause with its evidence, the setting that it hangs on, and another value.

A cause is told apart by what the log of every run says, whatever its strategies: whether the gradient reaches the
answers, what the loss is the sum of, how long steps were and how far behind the teacher was, what became of the
weights, what was shown of how many samples, and whether they were different ones.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jepakit.health.collapse import DECAYED, answers_fell, apart, penalties
from jepakit.health.course import Line, course, finite, median, values_of
from jepakit.health.learning import BEHIND, LONG, behind, few_samples, free, longest, same_data, shown_too_little

JUMP = 10.0
"""A gradient's norm jumps where it is so many times the median of those before it."""

FAR = 0.25
"""Share of the parameters' norm that what learns went away from its teacher: beyond it steps were long, whoever
followed."""

BATCH, MOMENTUM, END = 64, (0.99, 0.9995), 0.4
"""What is suggested: samples a step, a teacher's momentum at start and end, and the end of a weight decay."""


class Cause(NamedTuple):
    """``kind``: one of ``KINDS``; ``said``: a sentence with its evidence, and what to do; ``settings``: those that it
    hangs on, with their values in this run; ``change``: what to type instead, nothing where no value can be given."""

    kind: str
    said: str
    settings: Mapping[str, Any] = {}
    change: tuple[str, ...] = ()


def of_collapse(lines: Sequence[Line], config: Mapping[str, Any]) -> Cause | None:
    """The likely cause of a collapse. None for logs that do not say who answers."""
    if "target_grad" not in lines[-1]:
        return None
    return named(_kind(lines), lines, config)


def named(kind: str, lines: Sequence[Line], config: Mapping[str, Any]) -> Cause:
    """A cause in words, with the settings of this run. ``lines`` may be none."""
    return KINDS[kind](kind, lines, config)


def _kind(lines: Sequence[Line]) -> str:
    """The surest evidence first: what is wrong from the beginning, then what happened on the way."""
    last, (weight, left) = lines[-1], course(lines, "weight")
    told = {
        "data all alike": same_data(lines),
        "nothing keeps features apart": free(last),
        "batch too small": few_samples(lines),
        "weight decay too strong": left < DECAYED * weight and pulled(lines),
        "learning rate too high": bool(jump(lines)) or longest(lines) > LONG,
        "penalties at the wrong place": apart(lines),
        "penalties too weak": (last.get("target_grad") or 0.0) > 0,
        "EMA too fast": (behind(lines) or BEHIND) < BEHIND,
        "mask too hard": shown_too_little(lines),
    }
    fallback = "EMA too fast" if answers_fell(lines) and farthest(lines) <= FAR else "learning rate too high"
    return next((kind for kind, true in told.items() if true), fallback)


def farthest(lines: Sequence[Line]) -> float:
    """The farthest that a teacher was from what learns, over its norm; 0 where the log knows of none."""
    return max(values_of(lines, "teacher_distance"), default=0.0)


def jump(lines: Sequence[Line]) -> str:
    """Where the gradient's norm jumped first, if it did."""
    norms = [(line["grad_norm"], line.get("step", "?")) for line in lines if finite(line.get("grad_norm"))]
    for number in range(3, len(norms)):
        (norm, step), usual = norms[number], median([before for before, _ in norms[:number]])
        if norm > JUMP * usual:
            return f"the gradient's norm was {norm / max(usual, 1e-12):.0f} times what it had been at step {step}"
    return ""


def pulled(lines: Sequence[Line]) -> bool:
    """Whether the longest step is weight decay's doing for the most part; also where the log does not say."""
    known = [line for line in lines if finite(line.get("step_length"))]
    if not known:
        return True
    worst = max(known, key=lambda line: line["step_length"])
    return worst["step_length"] <= LONG or worst["lr"] * worst["weight_decay"] > worst["step_length"] / 2


def _fast(kind: str, lines: Sequence[Line], config: Mapping[str, Any]) -> Cause:
    strategies, steps = config.get("anti_collapse") or {}, behind(lines)
    slow = {name: node for name, node in strategies.items() if _momentum(node)}
    settings = {f"anti_collapse.{name}.{key}": node[key] for name, node in slow.items() for key in ("start", "end")}
    change = [f"anti_collapse.{name}.{key}={each:g}" for name, node in slow.items() for key, each in _slower(node)]
    far = f", {steps:.1f} steps behind" if steps is not None else ""
    said = f"answers follow what learns too quickly{far}{_named(strategies)}; slow them down, add a penalty, or"
    return Cause(kind, f"{said} {_shorter(config)}", settings, tuple(change))


def _long(kind: str, lines: Sequence[Line], config: Mapping[str, Any]) -> Cause:
    optim, strategies, length = config.get("optim") or {}, config.get("anti_collapse") or {}, longest(lines)
    evidence = [each for each in (jump(lines),) if each]
    evidence += [f"one was {length:.2g} of the parameters' norm"] if length > LONG else []
    went = farthest(lines)
    evidence += [f"what learns went {went:.0%} of its norm away from its teacher"] if went > FAR else []
    said = f"steps are too long: {' and '.join(evidence)}" if evidence else "steps are too long"
    if lines and not evidence and not penalties(lines[-1]) and "target_grad" in lines[-1]:
        said = f"the answers still differ, what learns from them does not{_named(strategies)}: {said}"
    joint = ": " if not evidence and not lines else "; "
    change = (f"optim.lr={optim['lr'] / 10:.3g}", *_clipped(optim)) if optim.get("lr") else ()
    return Cause(kind, f"{said}{joint}{_shorter(config)}", _values(config, "optim.lr", "optim.clip"), change)


def _slow(kind: str, lines: Sequence[Line], config: Mapping[str, Any]) -> Cause:
    optim = config.get("optim") or {}
    said = f"steps are too short to learn anything: raise optim.lr{_value(optim, 'lr')}"
    rising = optim.get("start_lr") or 0.0
    change = (f"optim.lr={max(100 * optim['lr'], 1e-4):.3g}",) if finite(optim.get("lr")) else ()
    change += (f"optim.start_lr={max(10 * rising, 1e-5):.3g}",) if change and rising < 1e-6 else ()
    return Cause(kind, said, _values(config, "optim.lr", "optim.start_lr"), change)


def _decay(kind: str, lines: Sequence[Line], config: Mapping[str, Any]) -> Cause:
    (first, now), ends = course(lines, "weight"), (config.get("optim") or {}).get("weight_decay")
    decay, rate = max(values_of(lines, "weight_decay"), default=0.0), max(values_of(lines, "lr"), default=0.0)
    said = (
        f"weights shrink to {now / first:.0%} of what they were, at a weight decay of {decay:.3g} times lr {rate:.2g}"
    )
    change = (f"optim.weight_decay=[{min(ends[0], END):g},{END:g}]",) if ends else ()
    of = _value(config.get("optim") or {}, "weight_decay")
    return Cause(
        kind, f"{said}: lower the end of optim.weight_decay{of}", _values(config, "optim.weight_decay"), change
    )


def _small(kind: str, lines: Sequence[Line], config: Mapping[str, Any]) -> Cause:
    data, trainer = config.get("data") or {}, config.get("trainer") or {}
    count = int(course(lines, "samples")[1])
    times = -(-BATCH // max(int(data.get("batch_size") or count), 1))
    said = (
        f"{count} samples a step are too few: raise data.batch_size{_value(data, 'batch_size')}, or, where memory is "
    )
    said += f"short, trainer.accumulate{_value(trainer, 'accumulate')} (trainer.accumulate={times})"
    return Cause(kind, said, _values(config, "data.batch_size", "trainer.accumulate"), (f"data.batch_size={BATCH}",))


def _easy(kind: str, lines: Sequence[Line], config: Mapping[str, Any]) -> Cause:
    said = f"what is asked for lies next to what is shown{_masker(config)}: show less, ask for larger blocks"
    return Cause(kind, said, _mask_settings(config), _other_mask(config))


def _hard(kind: str, lines: Sequence[Line], config: Mapping[str, Any]) -> Cause:
    tokens = course(lines, "context_tokens")[1]
    said = f"{tokens:.0f} tokens of context do not tell one sample from another{_masker(config)}: show more of it"
    return Cause(kind, said, _mask_settings(config), _other_mask(config))


def _same(kind: str, lines: Sequence[Line], config: Mapping[str, Any]) -> Cause:
    data = config.get("data") or {}
    where = {key: data[key] for key in ("name", "root") if data.get(key)}
    said = "every sample is the same picture: look at the data (jepakit show views), and at how the source reads it"
    return Cause(kind, said, {f"data.{key}": value for key, value in where.items()}, ())


def _nothing(kind: str, lines: Sequence[Line], config: Mapping[str, Any]) -> Cause:
    strategies = config.get("anti_collapse") or {}
    said = (
        f"nothing keeps features apart{_named(strategies)}: the gradient reaches the answers, and the loss is a "
        "distance alone; choose a strategy that answers without gradient or adds a penalty (jepakit plugins lists them)"
    )
    return Cause(kind, said, {"anti_collapse": list(strategies)}, ("anti_collapse=[ema]",))


def _weak(kind: str, lines: Sequence[Line], config: Mapping[str, Any]) -> Cause:
    last, strategies = lines[-1], config.get("anti_collapse") or {}
    weight = config.get("distance_weight")
    said = f"penalties are too weak beside the distance: {_held(last)}{_named(strategies)}; raise theirs, or lower "
    said += f"distance_weight{_value(config, 'distance_weight')}"
    change = (f"distance_weight={weight / 10:g}",) if weight else ()
    return Cause(kind, said, _values(config, "distance_weight"), change)


def _elsewhere(kind: str, lines: Sequence[Line], config: Mapping[str, Any]) -> Cause:
    strategies = config.get("anti_collapse") or {}
    said = f"penalties hold up what is seen, and not the answers{_named(strategies)}; let them be those of the answers"
    at = {f"anti_collapse.{name}.of": node["of"] for name, node in strategies.items() if "of" in node}
    return Cause(kind, f"{said} (of=truth)", at, tuple(f"{key}=truth" for key in at))


KINDS: dict[str, Callable[[str, Sequence[Line], Mapping[str, Any]], Cause]] = {
    "EMA too fast": _fast,
    "learning rate too high": _long,
    "learning rate too low": _slow,
    "weight decay too strong": _decay,
    "batch too small": _small,
    "mask too easy": _easy,
    "mask too hard": _hard,
    "data all alike": _same,
    "nothing keeps features apart": _nothing,
    "penalties too weak": _weak,
    "penalties at the wrong place": _elsewhere,
}
"""Every cause that is known, and how it is put into words."""


def _held(last: Line) -> str:
    """The penalties' share of the loss."""
    held = penalties(last)
    total = sum(value for value in held.values() if finite(value))
    return f"{' and '.join(held)} did not hold, at {total / max(last['loss'], 1e-12):.0%} of the loss"


def _shorter(config: Mapping[str, Any]) -> str:
    """The settings that make steps shorter, with their values where they are known."""
    optim = config.get("optim") or {}
    return f"lower optim.lr{_value(optim, 'lr')} or set optim.clip{_value(optim, 'clip')}"


def _clipped(optim: Mapping[str, Any]) -> list[str]:
    return [] if optim.get("clip") else ["optim.clip=1"]


def _momentum(node: Mapping[str, Any]) -> bool:
    """Whether a strategy is set by a momentum at start and end."""
    ends = [node.get(key) for key in ("start", "end")]
    return all(isinstance(end, (int, float)) and 0 <= end <= 1 for end in ends)


def _slower(node: Mapping[str, Any]) -> list[tuple[str, float]]:
    """A slower momentum: the usual one, or a tenth of the way that is left to one."""
    pairs = zip(("start", "end"), MOMENTUM, strict=True)
    return [(key, usual if node[key] < usual else 1 - (1 - node[key]) / 10) for key, usual in pairs if node[key] < 1]


def _masker(config: Mapping[str, Any]) -> str:
    settings = _mask_settings(config)
    return f" ({', '.join(f'{key}={value}' for key, value in settings.items())})" if settings else ""


def _mask_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    node = config.get("masker") or {}
    return {"masker": node["name"]} | {f"masker.{k}": v for k, v in node.items() if k != "name"} if node else {}


def _other_mask(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The masker at its defaults where it was set otherwise; of clips tubes."""
    frames = (config.get("data") or {}).get("frames", 1) or 1
    return ("masker=tubes",) if frames > 1 else ("masker=multiblock",)


def _named(strategies: Mapping[str, Any]) -> str:
    """The strategies as on the command line, and the numbers that they are set by."""
    numbers = [
        f"anti_collapse.{name}.{key}={value:g}"
        for name, node in strategies.items()
        for key, value in node.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    chosen = f"anti_collapse=[{','.join(strategies)}]"
    return f" ({', '.join([chosen, *numbers])})" if strategies else ""


def _value(node: Mapping[str, Any], key: str) -> str:
    return f"={node[key]}" if node.get(key) is not None else ""


def _values(config: Mapping[str, Any], *paths: str) -> dict[str, Any]:
    """Settings by dotted key, as far as the configuration has them."""
    found: dict[str, Any] = {}
    for path in paths:
        node: Any = config
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        found |= {path: node} if node is not None else {}
    return found
