"""Tiny runs on the built-in world: healthy ones, one of each family, and sick ones, each by one cause.

Each is a command line as a person would type it. What sick ones change is what the verdict has to name.
"""

from typing import Any

from jepakit.config import resolve

COMMON = (
    "data.length=512",
    "data.size=32",
    "data.batch_size=16",
    "data.workers=0",
    "trainer.steps=48",
    "trainer.epochs=3",
    "trainer.log_every=2",
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "trainer.threads=1",
    "logger.tensorboard=false",
    "evaluate.every=0",
    "optim.warmup=0.3",
)
WORLD = ("data=world_plain", "data.side=32")
SMALL = ("encoder=vit", "encoder.width=48", "encoder.depth=2", "encoder.heads=3")
GUESS = ("predictor=vit_predictor", "predictor.width=32", "predictor.depth=1", "predictor.heads=2")
LATENT = (*WORLD, *SMALL, *GUESS, "optim.lr=1e-3", "optim.start_lr=2e-4", "optim.final_lr=1e-5")
WHOLE = (
    *WORLD,
    "encoder.model_args.depth=1",
    "data.size=16",
    "encoder.size=16",
    "optim.lr=5e-4",
    "optim.start_lr=1e-4",
)
CLIPS = ("data=world_moving_plain", "data.batch_size=8", "data.length=256", *WORLD[1:], *LATENT[len(WORLD) :])
CLIPS += ("tokenizer=tubelet8", "masker=tubes_small")
CLIPS += ("encoder.positions=sincos_3d", "predictor.positions=sincos_3d", "predictor.mask_tokens=2", "distance=l1")
BARLOW = ("anti_collapse=[barlow]", "distance_weight=0")
SLOW = "anti_collapse=[ema_fast]"

HEALTHY: dict[str, tuple[str, ...]] = {
    "ijepa": ("recipe=ijepa_vitt4_32px", *LATENT, SLOW),
    "cjepa": ("recipe=cjepa_vitt4_32px", *LATENT, "anti_collapse=[ema_fast,vicreg_cjepa]"),
    "ijepa_vicreg": ("recipe=ijepa_vicreg_vitt4_32px", *LATENT),
    "ijepa_sigreg": ("recipe=ijepa_sigreg_vitt4_32px", *LATENT),
    "frozen": ("recipe=ijepa_vitt4_32px", *LATENT, "anti_collapse=[frozen]"),
    "vjepa": ("recipe=vjepa_vitt16_small", *CLIPS, SLOW),
    "vjepa21": (
        "recipe=vjepa_vitt16_small",
        *CLIPS,
        SLOW,
        "masker=tubes_vjepa21",
        "masker.mode=unbiased",
        "encoder.layers=[0,1]",
        "predictor.levels=2",
        "predictor.recalls=true",
    ),
    "vicreg": ("recipe=vicreg_vitt4_32px", *WHOLE, "encoder.expander=[128,128,128]"),
    "vicregl": (
        "recipe=vicregl_vitt4_32px",
        *WHOLE,
        "encoder.expander=[128,128,128]",
        "encoder.token_expander=[64,64,64]",
    ),
    "barlow": (
        "recipe=vicreg_vitt4_32px",
        *WHOLE,
        "encoder.expander=[128,128,128]",
        "anti_collapse=[barlow]",
        "distance_weight=0",
    ),
    "lejepa": ("recipe=lejepa_vitt4_32px", *WHOLE, "encoder.expander=[128,128,32]"),
    "mcjepa": (
        "recipe=mcjepa_convnext_64px",
        "data.length=256",
        "encoder.expander=[128,128,128]",
        "branches.motion.data.length=64",
        "branches.motion.data.batch_size=2",
        "branches.motion.data.workers=0",
        "trainer.steps=24",
        "trainer.log_every=1",
    ),
}

LONGER = ("trainer.steps=72", "trainer.log_every=3")
FAST = ("anti_collapse.ema.start=0.2", "anti_collapse.ema.end=0.2")
IJEPA, VICREG, PENALISED = HEALTHY["ijepa"], HEALTHY["vicreg"], HEALTHY["ijepa_vicreg"]


def rates(lr: float) -> tuple[str, ...]:
    return f"optim.lr={lr}", f"optim.start_lr={lr / 10}", f"optim.final_lr={lr / 10}"


SICK: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "none": ("nothing keeps features apart", "ill", (*IJEPA, *LONGER, "anti_collapse=[none]")),
    "ema": ("EMA too fast", "ill", (*IJEPA, *LONGER, *FAST, "optim.lr=2e-3")),
    "lr_high": ("learning rate too high", "unwell", (*IJEPA, *rates(0.1))),
    "lr_high_vicreg": ("learning rate too high", "unwell", (*VICREG, *rates(1.0))),
    "lr_low": ("learning rate too low", "not learning", (*IJEPA, *rates(1e-7))),
    "lr_low_vicreg": ("learning rate too low", "not learning", (*VICREG, *rates(1e-8))),
    "decay": ("weight decay too strong", "ill", (*IJEPA, "optim.weight_decay=[0.04,800.0]")),
    "decay_vicreg": ("weight decay too strong", "ill", (*VICREG, "optim.weight_decay=[0.04,2000.0]")),
    "batch": ("batch too small", "watch", (*IJEPA, "data.batch_size=2")),
    "batch_vicreg": ("batch too small", "watch", (*VICREG, "data.batch_size=2")),
    "easy": ("mask too easy", "watch", (*IJEPA, "masker=random", "masker.ratio=[0.03,0.05]")),
    "hard": ("mask too hard", "not learning", (*IJEPA, "masker=random", "masker.ratio=[0.97,0.97]")),
    "weak": ("penalties too weak", "ill", (*PENALISED, "distance_weight=20000")),
    "alike": ("data all alike", "not learning", (*IJEPA, "trainer.steps=20")),
    "alike_vicreg": ("data all alike", "not learning", (*VICREG, "trainer.steps=20")),
}
"""By name: the cause and the word (``ill``: collapsing or collapsed; ``unwell``: not healthy) to be said, and the
command line. In what is called alike all samples are one picture."""


def configured(*settings: str) -> dict[str, Any]:
    """What a command line stands for."""
    return resolve(words(*settings))


def words(*settings: str) -> list[str]:
    """All of a command line: of settings that are given twice the later one."""
    return list({word.partition("=")[0]: word for word in (*COMMON, *settings)}.values())
