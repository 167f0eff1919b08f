"""Vision transformers: tokenizers, encoder, and the narrow predictor.

Papers: ViT (arXiv 2010.11929), I-JEPA (arXiv 2301.08243). Sizes, norms and initialisation are those of the released
I-JEPA code; parameters carry timm's names. What differs from it:

* only kept patches are embedded (the released code embeds all, then drops);
* positions are computed for any grid instead of being stored for one;
* attention runs through the kernel that suits device and type;
* the released encoder scales its initial weights by depth, and its training script then draws every linear layer
  anew without that scale: what it trains, and what is built here, has none.
"""

from typing import Any

from jepakit import hookimpl


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.tokenizer("patch", "jepakit_vit.tokenizer:PatchTokenizer")
    registrar.tokenizer("joint", "jepakit_vit.joint:JointTokenizer")
    registrar.encoder("vit", "jepakit_vit.encoder:VitEncoder")
    registrar.predictor("vit_predictor", "jepakit_vit.predictor:VitPredictor")
    registrar.format("meta", "jepakit_vit.formats.meta:MetaIJepa")
    registrar.format("hf", "jepakit_vit.formats.hugging_face:HuggingFaceIJepa")
    registrar.format("timm", "jepakit_vit.formats.timm:TimmVit")
    registrar.format("vjepa", "jepakit_vit.formats.vjepa:MetaVJepa")
    registrar.format("vjepa2", "jepakit_vit.formats.vjepa:MetaVJepa2")
    registrar.format("hf_vjepa2", "jepakit_vit.formats.hugging_face_video:HuggingFaceVJepa2")
