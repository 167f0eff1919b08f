"""``jepakit bench``: what a step costs, part by part, and beside another one."""
