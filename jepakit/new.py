"""``jepakit new masker checkerboard``: the files of a plugin, with a contract test that passes as it is written."""

import importlib.util
import keyword
import re
from pathlib import Path
from string import Template

from jepakit.errors import ConfigError, nearest

MASKER = '''"""The idea in a sentence, and its paper. Chosen by ``masker=$name``, set by ``masker.keep=0.25``."""

import jepakit


class $cls:
    """Shows a random ``keep`` of the tokens and asks for all others. The arguments are the configuration."""

    def __init__(self, keep: float = 0.5):
        self.keep = keep

    def __call__(self, grid, batch_size, rng):
        import torch  # here and not above: the command line reads this file, and stays quick without torch

        seen = min(max(int(self.keep * grid.size), 1), grid.size - 1)
        if not seen:
            raise ValueError(f"$name needs two tokens or more: one to see, one to imagine; the grid is {grid}")
        order = torch.rand(batch_size, grid.size, generator=rng).argsort(dim=1)  # B N
        return [jepakit.Mask(context=order[:, :seen], target=order[:, None, seen:])]


@jepakit.hookimpl
def jepakit_register(registrar):
    registrar.masker("$name", $cls)
'''

REGISTER = '''"""The idea in a sentence, and its paper. Chosen by ``$kind=$name``."""

import jepakit


@jepakit.hookimpl
def jepakit_register(registrar):
    # A string, so that the command line reads this file without importing torch.
    registrar.$kind("$name", "$module.$name:$cls")
'''

HEAD = '''"""The mathematics of ``$kind=$name``. The constructor's arguments are its configuration."""

'''

TOKENIZER = '''from torch import nn

from jepakit.types import Grid, take


class $cls(nn.Module):
    """Cuts every frame into squares and embeds those that are kept by one linear map.

    ``channels`` and ``encoder_width`` are supplied when the model is built.
    """

    def __init__(self, channels: int, encoder_width: int, patch: int = 4):
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(channels * patch * patch, encoder_width)

    def grid(self, t, h, w):
        if h % self.patch or w % self.patch:
            raise ValueError(f"{h} x {w} pixels cannot be cut into squares of {self.patch}")
        return Grid(t, h // self.patch, w // self.patch)

    def forward(self, pixels, keep=None):
        _, h, w = self.grid(*pixels.shape[2:])
        cut = pixels.unflatten(4, (w, self.patch)).unflatten(3, (h, self.patch))  # B C t h p w p
        squares = cut.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)  # B N (C p p)
        return self.proj(take(squares, keep))
'''

ENCODER = '''import torch
from torch import nn


class $cls(nn.Module):
    """Adds where a token lies, then puts each token through the same small network."""

    def __init__(self, width: int = 64, hidden: int = 128):
        super().__init__()
        self.width = width
        self.place = nn.Linear(1, width)
        self.net = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens, index, grid):
        if index is None:
            index = torch.arange(grid.size, device=tokens.device).expand(len(tokens), -1)
        x = tokens + self.place(index[..., None].to(tokens.dtype) / grid.size)
        return x + self.net(x)
'''

PREDICTOR = '''import torch
from torch import nn


class $cls(nn.Module):
    """Imagines each target from the mean of what is seen and from where the target lies.

    ``encoder_width`` is supplied when the model is built.
    """

    def __init__(self, encoder_width: int, hidden: int = 64):
        super().__init__()
        self.place = nn.Linear(1, encoder_width)
        self.net = nn.Sequential(nn.Linear(encoder_width, hidden), nn.GELU(), nn.Linear(hidden, encoder_width))

    def forward(self, seen, mask, grid, condition=None):
        target = mask.target
        if target is None:  # the whole view, as one block
            target = torch.arange(grid.size, device=seen.device).expand(len(seen), 1, -1)
        place = self.place(target[..., None].to(seen.dtype) / grid.size)  # B M Q D
        return self.net(seen.mean(1)[:, None, None] + place)
'''

ANTI_COLLAPSE = '''import torch
from torch import nn

from jepakit.statistics import average


class $cls(nn.Module):
    """The backbone answers itself, and is forbidden to answer everything with the same."""

    statistics = True  # of the samples of a step: it is shown those of all micro-batches at once

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def prepare(self, backbone, steps):
        """Nothing to make ready: there is no teacher."""

    def targets(self, backbone, view):
        return backbone(view)  # None instead leaves the answer to another strategy

    def penalty(self, seen, guess, truth):
        tokens = seen.flatten(0, 1)  # those of all processes have a part in an average
        variance = average((tokens - average(tokens)[1]).square())[1]  # D
        std = variance.add(1e-4).sqrt()
        return {"$name": self.weight * torch.relu(1 - std).mean()}

    def after_step(self, backbone, step):
        """Nothing moves."""
'''

TEST = '''"""The contract of $kind=$name, as jepakit states it."""

${imports}from jepakit.testing import check_$kind
from $where import $cls


def test_contract():
    $check
'''

PROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "$kind $name for jepakit"
readme = "README.md"
dependencies = ["jepakit"]

[project.entry-points.jepakit]
$name = "$module"

[tool.setuptools]
$contents = ["$module"]

[tool.pytest.ini_options]
pythonpath = ["."]
"""

README = """# $distribution

A $kind for jepakit: say here what the idea is, and which paper it comes from.

    pip install -e .                    # jepakit finds it: see `jepakit plugins`
    pytest                              # its contract
    jepakit train $choice

The arguments of `$cls` are its configuration; `$kind.ARGUMENT=VALUE` sets one.
"""

BODIES = {"tokenizer": TOKENIZER, "encoder": ENCODER, "predictor": PREDICTOR, "anti_collapse": ANTI_COLLAPSE}
KINDS = ("masker", *BODIES)
"""What ``new`` can write."""

CHECKS = {
    "tokenizer": ("", "check_tokenizer($cls(channels=3, encoder_width=16))"),
    "predictor": ("import torch\n", "check_predictor($cls(encoder_width=16), seen=torch.randn(2, 16, 16))"),
    "anti_collapse": (
        "import torch\nfrom torch import nn\n",
        "backbone = nn.Sequential(nn.Flatten(2), nn.Linear(64, 8))  # B N D at its smallest\n"
        "    check_anti_collapse($cls(), backbone, torch.randn(4, 3, 1, 8, 8))",
    ),
}
"""Imports and body of a contract test that has to stand in for the build; of others, only the component is made."""


def new(kind: str, name: str, folder: Path | None = None) -> list[Path]:
    """Write a plugin that brings one component, and return its files. ``folder`` is ``./jepakit-NAME`` if not given.

    Raises ConfigError for a kind or name that cannot be, and where a file would be overwritten.
    """
    _check(kind, name)
    folder = Path(f"jepakit-{name.replace('_', '-')}") if folder is None else Path(folder)
    files = {folder / path: text for path, text in _texts(kind, name).items()}
    for path in files:
        if path.exists():
            raise ConfigError(
                f"{path} is there already, and is not overwritten; choose another name, or a folder: "
                "jepakit new KIND NAME FOLDER"
            )
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return list(files)


def _check(kind: str, name: str) -> None:
    if kind not in KINDS:
        raise ConfigError(f"jepakit new writes no {kind!r}{nearest(kind, KINDS)}; it writes: {', '.join(KINDS)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        better = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_")
        hint = f" (did you mean {better!r}?)" if re.fullmatch(r"[a-z]\w*", better) and better != name else ""
        raise ConfigError(f"{name!r} cannot name a {kind}: small letters, digits and _, no word of Python's{hint}")
    if importlib.util.find_spec(f"jepakit_{name}"):
        raise ConfigError(f"a module jepakit_{name} is installed already; choose another name than {name!r}")


def _texts(kind: str, name: str) -> dict[str, str]:
    """The files by their path. What needs torch for its base class lies in a module of its own, imported when used."""
    module, single = f"jepakit_{name}", kind == "masker"
    imports, check = CHECKS.get(kind, ("", f"check_{kind}($cls())"))
    words = {
        "kind": kind,
        "name": name,
        "cls": "".join(part.title() for part in name.split("_")),
        "module": module,
        "where": module if single else f"{module}.{name}",
        "contents": "py-modules" if single else "packages",
        "distribution": module.replace("_", "-"),
        "imports": imports,
        "choice": f"recipe=demo {kind}={name}",
    }
    words["check"] = Template(check).substitute(words)
    code = {f"{module}.py": MASKER}
    if not single:
        code = {f"{module}/__init__.py": REGISTER, f"{module}/{name}.py": HEAD + BODIES[kind]}
    texts = {**code, f"test_{module}.py": TEST, "pyproject.toml": PROJECT, "README.md": README}
    return {path: Template(text).substitute(words) for path, text in texts.items()}
