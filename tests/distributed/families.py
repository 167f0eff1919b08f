"""One tiny run of each family of methods, and the ways to spread its step over processes."""

COMMON = (
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "trainer.threads=1",
    "trainer.steps=2",
    "trainer.log_every=1",
    "trainer.scaling=none",
    "logger.tensorboard=false",
    "evaluate.every=0",
    "data.workers=0",
    "data.length=32",
    "optim.warmup=0",
    "optim.lr=0.1",
    "optim.start_lr=0.1",
    "optim.eps=1.0",  # or AdamW would make as much of rounding as of gradients, where these are next to nothing
)
VIT = (
    "tokenizer=patch",
    "tokenizer.patch=4",
    "encoder=vit",
    "encoder.width=24",
    "encoder.depth=2",
    "encoder.heads=2",
)
PREDICTOR = ("predictor=vit_predictor", "predictor.width=12", "predictor.depth=1", "predictor.heads=2")
PICTURES = ("data=world", "data.side=16", "data.size=16")
PAIR = ("masker=pair", "predictor=identity", "distance=l2", "+views={global: {count: 2, blur: 0.5}}")
ASKED = ("masker=multiblock", "masker.min_keep=0")

FAMILIES = {
    "ijepa": (*COMMON, *PICTURES, *VIT, *PREDICTOR, *ASKED, "anti_collapse=[ema]", "encoder.drop_path=0.1")
    + ("optim.clip=0.05",),
    "vjepa": (
        *("recipe=vjepa_vitt16_small", "data=world_moving", *COMMON, "data.frames=4", "tokenizer.patch=8"),
        *("encoder.width=24", "encoder.depth=1", "encoder.heads=2", "predictor.width=12"),
        *("predictor.depth=1", "predictor.heads=2"),
    ),
    "vicreg": (*COMMON, *PICTURES, *VIT, *PAIR, "anti_collapse=[vicreg]", "distance_weight=25"),
    "sigreg": (*COMMON, *PICTURES, *VIT, *PREDICTOR, *ASKED, "anti_collapse=[ema,sigreg]", "distance=l2"),
    "mcjepa": (
        *("recipe=mcjepa_convnext_64px", *COMMON, "trainer.alternate=false"),
        *("branches.motion.data.workers=0", "branches.motion.data.length=32", "encoder.expander=[64,64,64]"),
    ),
}
"""Settings of each, but for the batch."""
SAMPLES = 8
"""Of a step, however many processes share it."""
BATCH = {"ijepa": 2, "vjepa": 2}
"""Samples of a micro-batch, where masks are cut to its shortest: of these families a step of four processes is four
micro-batches of one process, and a step of two processes is half as long. Else a step is one batch, shared out."""
SPREAD = {
    "one": (1, ()),
    "ddp of 2": (2, ("trainer.strategy=ddp",)),
    "fsdp2 of 2": (2, ("trainer.strategy=fsdp2",)),
    "ddp of 4": (4, ("trainer.strategy=ddp",)),
    "fsdp2 of 4": (4, ("trainer.strategy=fsdp2",)),
    "hsdp of 4": (4, ("trainer.strategy=hsdp", "trainer.shard=2")),
}
"""Processes, and what they are told."""


def spreads(family: str, world: int | None = None) -> list[str]:
    """How a family's run is spread, over ``world`` processes or any number; hsdp is seen to once."""
    some = (name for name, (count, _) in SPREAD.items() if world in (None, count))
    return [name for name in some if "hsdp" not in name or family == "ijepa"]


def settings(family: str, spread: str) -> list[str]:
    """A family's run of ``SAMPLES`` samples a step, spread over processes."""
    world, told = SPREAD[spread]
    batch = BATCH.get(family, SAMPLES // world)
    own = [f"branches.motion.data.batch_size={batch}"] * (family == "mcjepa")
    return [
        *FAMILIES[family],
        *told,
        f"data.batch_size={batch}",
        f"trainer.accumulate={SAMPLES // batch if world == 1 else 1}",
        *own,
    ]
