"""Questions from view to view, nothing hidden: views themselves are what differs."""

from torch import Generator

from jepakit.types import Grid, Mask


class Pair:
    """From every view to each global view but itself: one mask for each.

    Source: VICReg with two global views; VICRegL's multi-crop with two global and six local ones.

    Args:
        views: global ones, which are seen and asked for; they are the first.
        local_views: those after them, which are only seen.

    Raises:
        ValueError: for fewer than two views, or no global one.
    """

    def __init__(self, views: int = 2, local_views: int = 0):
        self.views, self.all = views, _counted(views, local_views)

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        return [Mask(None, None, one, other) for one in range(self.all) for other in range(self.views) if one != other]


class Mean:
    """From every view to the mean of the global views, itself among them: one mask for each view.

    Source: LeJEPA, whose recommended setting has two global and six local views, and whose minimal one has four global
    ones.

    Args:
        views: global ones, which are seen and whose mean is asked for; they are the first.
        local_views: those after them, which are only seen.

    Raises:
        ValueError: for fewer than two views, or no global one.
    """

    def __init__(self, views: int = 2, local_views: int = 0):
        self.views, self.all = views, _counted(views, local_views)

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        return [Mask(None, None, view, tuple(range(self.views))) for view in range(self.all)]


class Next:
    """From every view to the one after it: frames in their order.

    Source: MC-JEPA's motion, from frame t to frame t + 1.

    Args:
        views: how many there are.

    Raises:
        ValueError: for fewer than two views.
    """

    def __init__(self, views: int = 2):
        self.views = _counted(views, 0)

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        return [Mask(None, None, view, view + 1) for view in range(self.views - 1)]


class Itself:
    """From every view to itself: for predictors that are not shown all of it at once.

    Args:
        views: how many there are.

    Raises:
        ValueError: for no view.
    """

    overlaps = True

    def __init__(self, views: int = 1):
        if views < 1:
            raise ValueError(f"views={views}: there must be one at least")
        self.views = views

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        return [Mask(None, None, view, view) for view in range(self.views)]


def _counted(views: int, local_views: int) -> int:
    if views < 1 or local_views < 0 or views + local_views < 2:
        raise ValueError(
            f"views={views}, local_views={local_views}: there must be a global view at least, and two views in all"
        )
    return views + local_views
