"""V-JEPA's masks: blocks of the frame hidden for the whole length of a clip, and tubes hidden at random.

Papers: V-JEPA (arXiv 2404.08471); V-JEPA 2 (arXiv 2506.09985), which keeps them; V-JEPA 2.1 (arXiv 2603.14482), which
asks for the context as well (``recall``). Two modes of ``tubes``, which differ in how masks of unequal size are cut to
the batch's smallest:

* ``unbiased`` (the default) drops whole tubes, drawn at random: no frame and no row is favoured, and a place is seen at
  all times or at none.
* ``official`` keeps the first tokens in order of time, as the released collator does, which starves the late frames.
"""

from typing import Any

from jepakit import hookimpl


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.masker("tubes", "jepakit_tubes.tubes:Tubes")
    registrar.masker("random_tubes", "jepakit_tubes.random_tubes:RandomTubes")
