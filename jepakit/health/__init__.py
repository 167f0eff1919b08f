"""Is a run learning, is it collapsing, and why? A loss that falls says nothing.

    figures.py    what of a step's features is worth a line of the log
    spectra.py    in how many directions features vary: RankMe, alpha-ReQ, LiDAR
    baselines.py  what a guess has to beat: the mean, the nearest context, what it would say of any other sample
    movement.py   what a step does to the parameters: how far they and the teacher are moved
    pixels.py     whether the samples of a step are all the same picture
    course.py     how a figure went, by the lines of a log
    verdict.py    what is to be said of a log, in one word with its evidence
    collapse.py   have features collapsed, or do they shrink?
    learning.py   does the run learn what it is asked?
    causes.py     why not, most likely: the setting, and what to type instead
    watch.py      a verdict after each line of a run that goes on
    rollback.py   back to where a run was healthy
    meaning.py    what each figure means, in words
    entry.py      ``jepakit health``

Nothing of this changes what a training computes. From course.py on nothing needs torch.
"""
