"""Pictures of what a run sees, how it goes, and what it has learned.

    masks.py      context and targets, laid over pictures
    strip.py      the same of clips, as a picture that moves
    audit.py      how often every token is context and target
    views.py      what a sample looks like to the model, and where its views were cut
    curves.py     loss, score, health and schedules, from log.jsonl
    spectrum.py   in how many directions features vary
    features.py   patch tokens as colours
    flow.py       how pairs of frames move, truly and as a model says; moved.py has its images
    neighbours.py which pictures an encoder finds alike
    predictions.py  what a predictor says of hidden tokens: asked.py asks it, judged.py holds it against what needs no
                  predictor, decoder.py makes pixels of tokens, imagined.py shows its features as colours
    report.py     all of it on one page: sections.py says what stands where, facts.py and scored.py what the run folder
                  tells, captions.py what to look for; page.py and look.py are the page itself
    mosaic.py     sheets of many small pictures
    entry.py      ``jepakit show masks``, with ``--audit`` too, ``show views`` and the like

Every sheet is drawn in one style (style.py), written to a file, and needs no display.
"""

from jepakit.pictures.curves import curves as curves
from jepakit.pictures.entry import audited as audited
from jepakit.pictures.entry import command as command
from jepakit.pictures.features import features as features
from jepakit.pictures.flow import flow as flow
from jepakit.pictures.masks import masks as masks
from jepakit.pictures.spectrum import spectrum as spectrum
from jepakit.pictures.strip import strip as strip
