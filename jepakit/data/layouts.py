"""How data sets with optical flow lie on disk: which files are the two frames of a pair, and which tell their motion.

    middlebury    <scene>/{frame10.png,frame11.png,flow10.flo}, or other-data/<scene> and other-gt-flow/<scene>
    chairs        00001_{img1.ppm,img2.ppm,flow.flo}, or 0000000-{img0.ppm,img1.ppm,gt.flo}
    sintel        {clean,final,flow,occlusions,invalid}/<scene>/frame_0001.png
    kitti         {image_2,colored_0,image_0}/000000_{10,11}.png and {flow_occ,flow_noc}/000000_10.png
    frames        numbered pictures of a folder

Each layout is a function from relative paths to pairs. What belongs to a pair but is not there is an empty path: the
pair is one of the data set all the same, and cannot be read.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from jepakit.errors import ConfigError, nearest

FLOWS = ("middlebury", "chairs", "sintel", "kitti")
"""Layouts of data sets with known flow; they are recognised."""
LAYOUTS = (*FLOWS, "videos", "frames")
"""Every layout there is."""
RENDERINGS = ("clean", "final")
"""Sintel's: without and with atmosphere and blur."""
CAMERAS = ("image_2", "colored_0", "image_0")
"""KITTI's folders of pictures: of 2015, of 2012 in colours and in greys. The first that there is counts."""
PICTURE = r"\.(?:png|ppm|jpe?g)"
ABOVE = "((?:.*/)?)"


class Pair(NamedTuple):
    """The files of a pair, empty where there is none.

    ``clear`` is a second flow, that is known only where the pixel is seen in both frames (KITTI's flow_noc);
    ``occluded`` and ``invalid`` are pictures that are not black where a pixel is so (Sintel).
    """

    first: str
    second: str
    flow: str = ""
    clear: str = ""
    occluded: str = ""
    invalid: str = ""


def find(files: Iterable[str], layout: str, rendering: str, gap: int) -> dict[str, list[Pair]]:
    """The pairs among ``files`` (relative paths) in ``layout``, or, of ``auto``, in each flow data set's layout that is
    recognised. Layouts without a pair are left out."""
    files = sorted(file.replace(os.sep, "/") for file in files)
    known: dict[str, Callable[[], list[Pair]]] = {
        "middlebury": lambda: middlebury(files, strict=layout == "auto"),
        "chairs": lambda: chairs(files),
        "sintel": lambda: sintel(files, rendering),
        "kitti": lambda: kitti(files),
    }
    if layout == "auto":
        found = {name: look() for name, look in known.items()}
        return {name: pairs for name, pairs in found.items() if any(pair.first and pair.second for pair in pairs)}
    known["frames"] = lambda: frames(files, gap)
    return {layout: pairs} if (pairs := known[layout]()) else {}


def check(layout: str, rendering: str) -> None:
    """Raises ConfigError for a layout or a rendering that does not exist."""
    for name, given, known in (("layout", layout, ("auto", *LAYOUTS)), ("rendering", rendering, RENDERINGS)):
        if given not in known:
            raise ConfigError(f"data.{name}={given}: it must be one of {', '.join(known)}{nearest(given, known)}")


def middlebury(files: list[str], strict: bool = False) -> list[Pair]:
    """Baker et al., A Database and Evaluation Methodology for Optical Flow (IJCV 2011).

    Frames 10 and 11 are in many videos: with ``strict``, there must be ground truth for one pair at least.
    """
    place = r"(.*?)(?:other-(?:data|gt-flow)/)?((?:[^/]+/)?)"
    found = grouped(
        files,
        first=rf"{place}frame10{PICTURE}",
        second=rf"{place}frame11{PICTURE}",
        flow=rf"{place}flow10\.flo",
    )
    return [] if strict and not any("flow" in roles for roles in found.values()) else list(map(pair, found.values()))


def chairs(files: list[str]) -> list[Pair]:
    """FlyingChairs: Dosovitskiy et al., FlowNet (ICCV 2015)."""
    stem = r"(.*\d)"
    found = grouped(
        files,
        first=rf"{stem}(?:_img1|-img0){PICTURE}",
        second=rf"{stem}(?:_img2|-img1){PICTURE}",
        flow=rf"{stem}(?:_flow|-gt)\.flo",
    )
    return [pair(roles) for roles in found.values()]


def sintel(files: list[str], rendering: str) -> list[Pair]:
    """Butler et al., A Naturalistic Open Source Movie for Optical Flow Evaluation (ECCV 2012)."""
    place = r"/([^/]+)/frame_(\d+)"
    found = grouped(
        files,
        first=rf"{ABOVE}{rendering}{place}\.png",
        flow=rf"{ABOVE}flow{place}\.flo",
        occluded=rf"{ABOVE}occlusions?{place}\.png",
        invalid=rf"{ABOVE}invalid{place}\.png",
    )
    pairs = []
    for (above, scene, number), roles in found.items():
        after = found.get((above, scene, f"{int(number) + 1:0{len(number)}d}"), {}).get("first", "")
        if "flow" in roles or ("first" in roles and after):
            pairs.append(pair(roles | {"second": after}))
    return pairs


def kitti(files: list[str]) -> list[Pair]:
    """Geiger et al. (CVPR 2012), and Menze and Geiger, Object Scene Flow (CVPR 2015)."""
    cameras = {f"{camera} {n}": rf"{ABOVE}{camera}/(\d+)_{n}\.png" for camera in CAMERAS for n in (10, 11)}
    found = grouped(files, flow=rf"{ABOVE}flow_occ/(\d+)_10\.png", clear=rf"{ABOVE}flow_noc/(\d+)_10\.png", **cameras)
    pairs = []
    for roles in found.values():
        camera = next((name for name in CAMERAS if f"{name} 10" in roles), CAMERAS[0])
        seen = {"first": roles.get(f"{camera} 10", ""), "second": roles.get(f"{camera} 11", "")}
        flow = {"flow": roles["flow"], "clear": roles.get("clear", "")} if "flow" in roles else {}
        pairs.append(pair(seen | (flow or {"flow": roles.get("clear", "")})))
    return pairs


def frames(files: list[str], gap: int) -> list[Pair]:
    """Pictures of one folder whose names differ by their last number alone, and these numbers by ``gap``."""
    series: dict[tuple[str, ...], dict[int, str]] = defaultdict(dict)
    for file in files:
        stem, suffix = os.path.splitext(file)
        if found := re.fullmatch(r"((?:.*/)?[^/]*?)(\d+)([^\d/]*)", stem):
            series[found[1], found[3], suffix].setdefault(int(found[2]), file)
    return [Pair(each[n], each[n + gap]) for each in series.values() for n in sorted(each) if n + gap in each]


def grouped(files: list[str], **patterns: str) -> dict[tuple[str, ...], dict[str, str]]:
    """For each key (the groups of the patterns, sorted), the file that plays each role."""
    compiled = {role: re.compile(pattern, re.IGNORECASE) for role, pattern in patterns.items()}
    found: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for file in files:
        for role, pattern in compiled.items():
            if match := pattern.fullmatch(file):
                found[match.groups()].setdefault(role, file)
    return dict(sorted(found.items()))


def pair(roles: dict[str, str]) -> Pair:
    """A pair from its files by role."""
    return Pair(**{"first": "", "second": ""} | {role: file for role, file in roles.items() if role in Pair._fields})
