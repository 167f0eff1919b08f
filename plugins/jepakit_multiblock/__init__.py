"""I-JEPA's masks: one large context block with several target blocks cut out of it.

Paper: I-JEPA (arXiv 2301.08243), section 3 and appendix A. Two modes:

* ``unbiased`` (the default) draws what the paper describes: scale and aspect ratio independently, every position,
  the last row and column included; contexts of unequal length are cut to the batch's shortest by random tokens.
* ``official`` draws what the released collator draws: one number sets both scale and aspect ratio, a block stays
  clear of the last row and column, and contexts keep their first tokens in raster order, which starves the bottom rows.
"""

from typing import Any

from jepakit import hookimpl


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.masker("multiblock", "jepakit_multiblock.multiblock:Multiblock")
