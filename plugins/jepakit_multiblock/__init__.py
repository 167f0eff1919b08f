"""I-JEPA's masks: one large context block with several target blocks cut out of it; and those it is compared with.

Paper: I-JEPA (arXiv 2301.08243), section 3, appendix A and Table 6. Two modes of ``multiblock``:

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
    registrar.masker("rasterized", "jepakit_multiblock.comparisons:Rasterized")
    registrar.masker("block", "jepakit_multiblock.comparisons:Block")
    registrar.masker("random", "jepakit_multiblock.comparisons:Random")
