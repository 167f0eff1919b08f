"""Help, listings and completion answer without torch."""

import json
import subprocess
import sys

from jepakit.cli import VERBS

CODE = """
import contextlib, io, json, os, sys
from jepakit.cli import main
answers = []
for argv, line in json.loads(sys.argv[1]):
    os.environ["COMP_LINE"] = line
    os.environ["JEPAKIT_PLUGIN_FILES"] = ""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = main(argv)
    assert code == 0, (argv, code)
    answers.append(said.getvalue())
print(json.dumps(answers))
heavy = sorted({"torch", "torchvision", "timm", "kornia", "matplotlib"} & set(sys.modules))
sys.exit(f"imported {heavy}" if heavy else 0)
"""
STUB = "tests/config/stub.py"


def answers(root, *questions: tuple[list[str], str]) -> list[str]:
    """What one fresh process says to each command line (and line to complete), in turn; it may not import torch."""
    argv = [sys.executable, "-c", CODE, json.dumps(questions)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def light(root, *argv: str) -> str:
    return answers(root, (list(argv), ""))[0]


def completed(root, *lines: str) -> list[list[str]]:
    return [said.split() for said in answers(root, *((["-sc", "query=bash"], line) for line in lines))]


def test_help_of_every_verb(root):
    verbs = ["train", "plan", "eval", "bench", "report", "show", "plugins", "data", "new", "doctor", "demo"]
    for verb, said in zip(verbs, answers(root, *(([verb, "--help"], "") for verb in verbs)), strict=True):
        assert said.startswith(f"usage: jepakit {verb}")


def test_help_lists_the_verbs(root):
    from jepakit.cli import VERBS

    said = light(root, "--help")
    assert all(f"\n  {verb} " in said for verb in VERBS)


def test_version(root):
    import jepakit

    assert light(root, "--version") == f"jepakit {jepakit.__version__}\n"


def test_help_of_train_lists_what_there_is(root):
    said = light(root, "train", "--help", "--plugin", STUB)
    maskers = next(line for line in said.splitlines() if line.startswith("  masker: "))
    assert "multiblock" in maskers and "stripes" in maskers and "vit_huge" in said


def test_plugins_are_listed(root):
    lines = light(root, "plugins", "--plugin", STUB).splitlines()
    assert lines[0].split() == ["name", "brings", "distribution", "version", "state"]
    stub = next(line for line in lines if line.startswith("stub"))
    assert "source=shelf masker=stripes anti_collapse=still,apart" in stub and stub.endswith("loaded")


def test_plugins_verbose_says_why_one_failed(root, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import not_there_at_all\n")
    short = light(root, "plugins", "--plugin", str(broken))
    assert "failed: ModuleNotFoundError: No module named 'not_there_at_all'" in short and "Traceback" not in short
    long = light(root, "plugins", "--verbose", "--plugin", str(broken))
    assert "  |     import not_there_at_all\n" in long.replace("  | import", "  |     import")
    assert "encoder=vit_huge: " in long and "masker multiblock: jepakit_multiblock.multiblock:Multiblock" in long


def test_show_config(root):
    lines = light(root, "show", "config", "encoder=vit_huge", "seed=3").splitlines()
    assert lines[0].split() == ["key", "value", "origin"]
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in lines}
    assert rows["seed"] == ["3", "command line"] and rows["encoder.width"][1] == "option encoder=vit_huge of plugin vit"


WORLDS = [
    f"data=world{each}" for each in ("", "_moving", "_moving_plain", "_pairs", "_pairs_64", "_plain", "_plain_64")
]
VIDEO = [
    "data=image_vjepa21",
    *(f"data=maps{each}" for each in ("", "_ade20k", "_cityscapes", "_kitti")),
    "data=pairs",
    "data=shelf",
    *(f"data=video{each}" for each in ("", "_short", "_vjepa", "_vjepa2", "_vjepa2_64f")),
]
COMPLETIONS = {
    "jepakit tr": ["train"],
    "jepakit ": list(VERBS),
    "jepakit show ": ["config", "curves", "flow", "masks", "predictions", "views"],
    "jepakit new ma": ["masker"],
    "jepakit data ": ["check"],
    "jepakit plugins --": ["--matrix", "--verbose"],
    "jepakit train rec": ["recipe="],
    f"jepakit train --plugin {STUB} data=": ["data=clevr", "data=folder", *VIDEO, *WORLDS],
    f"jepakit --plugin {STUB} train masker=s": ["masker=stripes"],
    f"jepakit train --plugin {STUB} masker=stripes masker.w": ["masker.way=", "masker.width="],
    "jepakit train masker.targ": ["masker.target_aspect=", "masker.target_scale=", "masker.targets="],
    "jepakit train optim.l": ["optim.lr="],
    "jepakit train opt": ["optim."],
    "jepakit train res": ["resume=auto"],
    "jepakit train -m encoder=vit_tiny,vit_huge optim.l": ["optim.lr="],
    "jepakit train nonsense=1 optim.l": ["optim.lr="],
    "jepakit show config encoder=vit_h": ["encoder=vit_huge"],
    "jepakit plan gp": ["gpu=", "gpus="],
    "jepakit export to=": ["to=hf", "to=hf_vjepa2", "to=meta", "to=safetensors", "to=timm", "to=vjepa", "to=vjepa2"],
    "jepakit features po": ["pool=mean", "pool=none"],
    "jepakit eval protocol=l": ["protocol=linear", "protocol=linear_ijepa", "protocol=logistic", "protocol=lowshot"]
    + [f"protocol=lowshot_{kind}" for kind in ("10", "5shot")],
    "jepakit train --plugin nowhere.py ": [],
}


def test_completion(root):
    assert dict(zip(COMPLETIONS, completed(root, *COMPLETIONS), strict=True)) == COMPLETIONS


def test_completion_can_be_installed(root):
    for said in answers(root, *((["-sc", f"install={shell}"], "") for shell in ("bash", "zsh", "fish"))):
        assert "-sc query=" in said


def test_every_recipe_completes(root):
    from jepakit.catalog import collect

    assert completed(root, "jepakit train recipe=") == [[f"recipe={name}" for name in collect().names("recipe")]]


def test_a_verdict_needs_no_torch(root, tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 1.0, "rank": 9.0, "std": 0.5}\n')
    assert ": healthy\n" in light(root, "health", f"run={tmp_path}", "picture=false")
