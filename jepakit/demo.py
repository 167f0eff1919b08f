"""``jepakit demo``: I-JEPA on the built-in world, its scores beside the controls, and its pictures."""

from collections.abc import Sequence
from pathlib import Path

from jepakit import evaluate, runs
from jepakit.launch import train


def command(argv: Sequence[str] = ()) -> int:
    """Train ``recipe=demo`` (with the overrides given), score it, and say where everything lies. Returns the code."""
    folder = runs.fresh(Path(runs.ROOT) / "demo")
    code = train(["recipe=demo", f"run={folder}", *argv])
    if code:
        return code
    print()
    evaluate.command(folder, {"protocol": "all"})
    print("\npictures:")
    for picture in sorted((folder / "pictures").glob("*.png")):
        print(f"  {picture}")
    print(f"everything else of the run: {folder} (log.txt, log.jsonl, config.yaml, checkpoints, TensorBoard)")
    return 0
