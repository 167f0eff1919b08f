"""A plugin grown up: the class is imported when it is used, and variants and a recipe are shipped along."""

import jepakit

JEPAKIT_API = (1, 0)


@jepakit.hookimpl
def jepakit_register(registrar):
    registrar.masker("stripes", "jepakit_checker_full.stripes:Stripes")
