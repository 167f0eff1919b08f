"""``jepakit demo [video]``: I-JEPA, or V-JEPA, on the built-in world, its scores beside the controls, its pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepakit import evaluate, runs
from jepakit.errors import ConfigError, nearest
from jepakit.launch import train

SCORES: dict[str, tuple[dict[str, Any], ...]] = {
    "demo": ({"protocol": "all"},),
    "demo_video": ({"protocol": "ridge", "label": "motion", "limit": 5000},),
}
"""How the run of each recipe is scored: options of ``jepakit eval``."""

WORDS = {"video": "demo_video"}
"""What may follow ``jepakit demo``, and its recipe."""


def command(argv: Sequence[str] = ()) -> int:
    """Train the demo's recipe (with the overrides given), score it, and say where everything lies. Returns the code.

    The first of ``argv`` may be one of ``WORDS``. Raises ConfigError for any other word.
    """
    word, argv = (argv[0], argv[1:]) if argv and "=" not in argv[0] and argv[0][:1] != "-" else ("", argv)
    if word and word not in WORDS:
        raise ConfigError(f"demo knows no {word!r}{nearest(word, WORDS)}; there is: {', '.join(WORDS)}")
    recipe = WORDS.get(word, "demo")
    folder = runs.fresh(Path(runs.ROOT) / recipe)
    code = train([f"recipe={recipe}", f"run={folder}", *argv])
    if code:
        return code
    for asked in SCORES[recipe]:
        print()
        evaluate.command(folder, asked)
    print("\npictures:")
    for picture in sorted(path for path in (folder / "pictures").iterdir() if path.suffix in (".png", ".webp")):
        print(f"  {picture}")
    print(f"all of it on one page: {folder / 'report.html'}")
    print(f"everything else of the run: {folder} (log.txt, log.jsonl, config.yaml, checkpoints, TensorBoard)")
    return 0
