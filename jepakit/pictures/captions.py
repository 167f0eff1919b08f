"""What is said of each picture of a report: its words for who cannot see it, and what to look for."""

from typing import NamedTuple


class Words(NamedTuple):
    """A picture's section, its title there, its alternative text and its caption."""

    section: str
    title: str
    alt: str
    caption: str


WORDS = {
    "curves": Words(
        "course",
        "Curves",
        "Curves of loss, scores, health and schedules over the steps of the run",
        "A loss that falls says little by itself: the score should rise above its controls, the effective rank should "
        "stay up, and the predictor should be nearer to the truth than the mean token.",
    ),
    "health": Words(
        "health",
        "Health",
        "The figures that the verdict hangs on, over the steps of the run, with the levels where it changes",
        "Dashed levels are where the verdict changes; behind the curves, in colour, what was said of the run and when.",
    ),
    "masks": Words(
        "saw",
        "Masks",
        "Sample pictures, what the encoder sees of them, and the target blocks that are asked for",
        "Left the picture, then the context (what is grey is hidden) and the targets in colours. Context and targets "
        "should not give each other away, and should leave something to guess from.",
    ),
    "moving": Words(
        "saw",
        "Masks, moving",
        "The same of clips, frame by frame, as a picture that moves",
        "The same, frame by frame.",
    ),
    "spectrum": Words(
        "features",
        "Spectrum",
        "How much features vary along each direction, over the run and beside a random encoder",
        "Features that have collapsed vary in few directions: their curve falls steeply. A healthy run's curve falls "
        "slowly, and does not get steeper as training goes on.",
    ),
    "features": Words(
        "features",
        "Features as colours",
        "Sample pictures with the first principal components of their patch tokens as colours",
        "Like tokens have like colours. A trained encoder groups patches by what they show; a random one mostly by "
        "brightness and colour. Colours compare within a column.",
    ),
    "neighbours": Words(
        "features",
        "Nearest neighbours",
        "Sample pictures beside the pictures that each encoder finds most alike",
        "A trained encoder should find pictures that show the same, a random one those of the same colours. Framed "
        "neighbours have the label of the picture that they are near to.",
    ),
    "predicted": Words(
        "predictor",
        "Predicted features beside the true ones",
        "Sample pictures, the colours of their true features, and of the predicted ones inside the hidden regions",
        "Inside the frames the predictor has seen nothing. The nearer its colours come to those of the true features, "
        "and the more they change from place to place as these do, the more it has understood.",
    ),
    "predictions": Words(
        "predictor",
        "What predicted tokens stand for",
        "Predicted tokens as nearest patches of other pictures and as drawn by a small decoder, beside the truth and "
        "what is said without a predictor",
        "Truth is the best that can be hoped for, the mean token of a place what can be said without looking. The "
        "paper's pictures (I-JEPA, Fig. 6) come from a diffusion model that makes details up, differently each time; "
        "here nothing is made up: what a token does not tell is blurred, and several answers come from several "
        "contexts.",
    ),
    "flow": Words(
        "motion",
        "Flow",
        "Pairs of frames with the estimated optical flow, its error, occlusions, and the second frame moved back",
        "Hue says where to, saturation how fast. The second frame, moved back, should look like the first.",
    ),
}
"""By the name of the picture."""

SECTIONS = {
    "health": "Verdict",
    "course": "How it went",
    "saw": "What it saw",
    "features": "What the encoder learned",
    "predictor": "What the predictor learned",
    "motion": "Motion",
}
"""The sections that hold pictures, in their order."""
