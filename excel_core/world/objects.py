"""How each class of the picture-book world is drawn: parts as polygons, in colours typical of the class.

An object lives in the box [-1, 1]² (x to the right, y down). `draw_object` returns its strokes from back to front;
scenes.py turns, scales and places them. All chance comes from the generator that is passed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASSES", "COLOURS", "Stroke", "draw_object"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (203, 46, 44),
    "orange": (240, 138, 36),
    "yellow": (246, 212, 70),
    "green": (52, 132, 58),
    "teal": (28, 158, 156),
    "blue": (44, 88, 196),
    "purple": (134, 70, 172),
    "pink": (242, 130, 178),
    "brown": (122, 76, 42),
    "cream": (238, 220, 182),
    "white": (246, 246, 242),
    "grey": (148, 152, 158),
    "black": (34, 34, 40),
}


@dataclass(frozen=True)
class Stroke:
    """One filled polygon of a part: points (P, 2) float64 as x, y in the object's box; rgb in [0, 255]."""

    part: str
    colour: str
    points: NDArray[np.float64]
    rgb: tuple[int, int, int]


class _Pen:
    """Collects the strokes of one object. A colour is jittered once per object, so that its parts match."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.strokes: list[Stroke] = []
        self._shift = rng.normal(0.0, 9.0, size=(len(COLOURS), 3))

    def pick(self, *names: str) -> str:
        return names[int(self.rng.integers(len(names)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def vary(self, value: float, share: float = 0.12) -> float:
        return float(value * (1.0 + self.rng.uniform(-share, share)))

    def polygon(self, part: str, colour: str, points: Sequence[Sequence[float]] | NDArray[np.float64]) -> None:
        rgb = np.asarray(COLOURS[colour]) + self._shift[list(COLOURS).index(colour)]
        red, green, blue = (int(c) for c in np.clip(np.rint(rgb), 0, 255))
        self.strokes.append(Stroke(part, colour, np.asarray(points, dtype=np.float64), (red, green, blue)))

    def box(self, part: str, colour: str, left: float, top: float, right: float, bottom: float) -> None:
        self.polygon(part, colour, [(left, top), (right, top), (right, bottom), (left, bottom)])

    def oval(self, part: str, colour: str, x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> None:
        angle = np.linspace(0.0, 2.0 * np.pi, 28, endpoint=False)
        across, down = rx * np.cos(angle), ry * np.sin(angle)
        cos, sin = np.cos(turn), np.sin(turn)
        self.polygon(part, colour, np.stack([x + cos * across - sin * down, y + sin * across + cos * down], 1))

    def band(self, part: str, colour: str, path: Sequence[Sequence[float]] | NDArray[np.float64], width: float) -> None:
        """A line of the given width along `path` (P, 2), as one polygon."""
        # Half the width to each side along the normals: there on one side, back on the other.
        centre = np.asarray(path, dtype=np.float64)
        along = np.gradient(centre, axis=0)
        normal = np.stack([-along[:, 1], along[:, 0]], 1)
        normal *= 0.5 * width / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        self.polygon(part, colour, np.concatenate([centre + normal, (centre - normal)[::-1]]))


# One function per class. Strokes are painted in order, so that what comes later hides what it covers; chance decides on the
# parts that not every object of the class has, which the statements of phrases.py are about.


def _house(pen: _Pen) -> None:
    top, side = pen.vary(-0.1, 0.5), pen.vary(0.72)
    roof, wall = pen.pick("red", "brown"), pen.pick("cream", "pink")
    if pen.chance(0.55):
        pen.box("chimney", "grey", 0.3, -0.95, 0.55, top)
        if pen.chance(0.5):
            pen.oval("smoke", "white", 0.5, -0.92, 0.2, 0.12)
            pen.oval("smoke", "white", 0.72, -0.98, 0.16, 0.1)
    pen.box("wall", wall, -side, top, side, 0.95)
    pen.polygon("roof", roof, [(-side - 0.22, top + 0.05), (pen.vary(0.0) - 0.05, -0.9), (side + 0.22, top + 0.05)])
    door = pen.vary(0.0) + pen.pick("l", "r").count("l") * 0.5 - 0.25
    pen.box("door", pen.pick("brown", "green"), door - 0.17, 0.35, door + 0.17, 0.95)
    glass = pen.pick("yellow", "blue")
    for x in (-0.45, 0.45):
        if abs(x - door) > 0.35:  # no window behind the door
            pen.box("window", glass, x - 0.17, 0.2, x + 0.17, 0.55)


def _tree(pen: _Pen) -> None:
    width = pen.vary(0.14, 0.3)
    pen.polygon("trunk", "brown", [(-width, 0.1), (width, 0.1), (width * 1.5, 0.98), (-width * 1.5, 0.98)])
    if pen.chance(0.5):
        for top, half in ((-0.15, 0.66), (-0.52, 0.54), (-0.95, 0.4)):
            pen.polygon("pointed crown", "green", [(0.0, top), (half, top + 0.66), (-half, top + 0.66)])
        return
    for x, y, r in ((-0.36, -0.1, 0.4), (0.36, -0.1, 0.4), (0.0, -0.5, 0.46), (0.0, -0.05, 0.36)):
        pen.oval("round crown", "green", pen.vary(x), pen.vary(y), r, r)
    if pen.chance(0.55):
        for x, y in ((-0.4, -0.12), (0.3, -0.2), (0.02, -0.6), (0.05, 0.08), (-0.2, -0.35)):
            pen.oval("apples", "red", x, y, 0.095, 0.095)


def _car(pen: _Pen) -> None:
    paint, roof = pen.pick("blue", "grey"), pen.vary(-0.48)
    pen.polygon("cabin", paint, [(-0.62, 0.0), (-0.38, roof), (0.3, roof), (0.6, 0.0)])
    pen.polygon("window", "cream", [(-0.46, -0.04), (-0.3, roof + 0.1), (-0.06, roof + 0.1), (-0.06, -0.04)])
    pen.polygon("window", "cream", [(0.04, -0.04), (0.04, roof + 0.1), (0.24, roof + 0.1), (0.44, -0.04)])
    pen.polygon("body", paint, [(-0.98, 0.02), (0.85, -0.04), (0.98, 0.14), (0.98, 0.42), (-0.98, 0.42)])
    pen.oval("headlight", "yellow", 0.86, 0.16, 0.11, 0.1)
    if pen.chance(0.5):
        pen.box("stripe", "white", -0.9, 0.14, 0.68, 0.24)
    if pen.chance(0.35):
        pen.box("luggage", "brown", -0.3, roof - 0.2, 0.2, roof)
    radius = pen.vary(0.25)
    for x in (-0.54, 0.54):
        pen.oval("wheels", "black", x, 0.42, radius, radius)
        pen.oval("hubs", "white", x, 0.42, radius * 0.42, radius * 0.42)


def _boat(pen: _Pen) -> None:
    cloth, hull = pen.pick("white", "cream"), pen.pick("brown", "red")
    pen.box("mast", "brown", -0.045, -0.95, 0.045, 0.4)
    pen.polygon("sail", cloth, [(0.08, -0.85), (pen.vary(0.8), 0.26), (0.08, 0.26)])
    if pen.chance(0.55):
        pen.polygon("front sail", cloth, [(-0.09, -0.6), (-0.09, 0.26), (-0.66, 0.26)])
    if pen.chance(0.55):
        pen.polygon("flag", pen.pick("yellow", "red"), [(0.0, -0.99), (-0.36, -0.88), (0.0, -0.76)])
    pen.polygon("hull", hull, [(-0.98, 0.36), (0.98, 0.36), (0.66, 0.9), (-0.66, 0.9)])
    if pen.chance(0.5):
        pen.polygon("stripe", "white", [(-0.93, 0.45), (0.93, 0.45), (0.86, 0.56), (-0.86, 0.56)])


def _fish(pen: _Pen) -> None:
    skin, fins = pen.pick("orange", "yellow"), pen.pick("orange", "red")
    tall = pen.vary(0.44)
    pen.polygon("tail", fins, [(0.4, 0.0), (0.98, -0.5), (0.84, 0.0), (0.98, 0.5)])
    pen.polygon("fins", fins, [(-0.2, -0.3), (0.2, -0.78), (0.36, -0.15)])
    pen.polygon("fins", fins, [(-0.1, 0.3), (0.2, 0.7), (0.3, 0.15)])
    pen.oval("body", skin, -0.2, 0.0, 0.76, tall)
    if pen.chance(0.55):
        for x in (-0.18, 0.2):
            half = tall * np.sqrt(1.0 - ((x + 0.2) / 0.76) ** 2) * 0.96  # as high as the oval body is there
            pen.box("stripes", "white", x - 0.085, -half, x + 0.085, half)
    pen.oval("eye", "white", -0.6, -0.1, 0.14, 0.14)
    pen.oval("eye", "black", -0.62, -0.1, 0.07, 0.07)


def _flower(pen: _Pen) -> None:
    petals, count = pen.pick("pink", "purple"), int(pen.rng.integers(5, 9))
    bend = pen.rng.uniform(-0.2, 0.2)
    pen.band("stem", "green", [(0.0, -0.3), (bend, 0.35), (bend * 0.5, 0.98)], 0.12)
    if pen.chance(0.75):
        pen.oval("leaves", "green", 0.3 + bend, 0.5, 0.32, 0.13, -0.6)
        pen.oval("leaves", "green", -0.3 + bend, 0.62, 0.32, 0.13, 0.6)
    for angle in np.linspace(0.0, 2.0 * np.pi, count, endpoint=False) + pen.rng.uniform(0.0, 1.0):
        x, y = 0.4 * np.cos(angle), -0.4 + 0.4 * np.sin(angle)
        pen.oval("petals", petals, x, y, 0.28, pen.vary(0.17, 0.2), angle)
    pen.oval("centre", pen.pick("yellow", "brown"), 0.0, -0.4, 0.22, 0.22)


def _cup(pen: _Pen) -> None:
    glaze, low = pen.pick("teal", "cream"), pen.vary(0.46)
    angle = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 12)
    if pen.chance(0.6):
        pen.oval("saucer", pen.pick("teal", "white"), 0.0, 0.82, 0.92, 0.15)
    pen.band("handle", glaze, np.stack([0.55 + 0.36 * np.cos(angle), 0.2 + 0.3 * np.sin(angle)], 1), 0.15)
    pen.polygon("bowl", glaze, [(-0.72, -0.2), (0.62, -0.2), (low, 0.8), (-low - 0.1, 0.8)])
    pen.oval("rim", "white", -0.05, -0.2, 0.67, 0.17)
    pen.oval("drink", "brown", -0.05, -0.2, 0.56, 0.115)
    if pen.chance(0.5):
        pen.box("band", "red", -0.64, 0.22, 0.56, 0.38)
    if pen.chance(0.55):
        rise = np.linspace(-0.32, -0.95, 10)
        for x in (-0.3, 0.15):
            pen.band("steam", "white", np.stack([x + 0.09 * np.sin(rise * 9.0), rise], 1), 0.1)


def _kite(pen: _Pen) -> None:
    first, second = pen.pick("purple", "red"), pen.pick("yellow", "teal")
    wide = pen.vary(0.56)
    fall = np.linspace(0.3, 0.98, 10)
    swing = 0.16 * np.sin((fall - 0.3) * 9.0)
    pen.band("tail", "white", np.stack([swing, fall], 1), 0.07)
    for i in (3, 6, 9):
        x, y = swing[i], fall[i] - 0.03
        wings = [(x - 0.2, y - 0.1), (x + 0.2, y + 0.1), (x + 0.2, y - 0.1), (x - 0.2, y + 0.1)]
        pen.polygon("bows", pen.pick("red", "pink"), wings)
    pen.polygon("panels", first, [(0.0, -0.95), (wide, -0.35), (0.0, 0.38), (-wide, -0.35)])
    pen.polygon("bright panels", second, [(0.0, -0.95), (wide, -0.35), (0.0, -0.35)])
    pen.polygon("bright panels", second, [(0.0, 0.38), (-wide, -0.35), (0.0, -0.35)])
    if pen.chance(0.6):
        pen.band("sticks", "brown", [(0.0, -0.93), (0.0, 0.36)], 0.06)
        pen.band("sticks", "brown", [(-wide * 0.97, -0.35), (wide * 0.97, -0.35)], 0.06)


def _mushroom(pen: _Pen) -> None:
    cap, thick = pen.pick("red", "red", "brown"), pen.vary(0.24, 0.25)
    pen.polygon("stem", "cream", [(-thick, 0.0), (thick, 0.0), (thick * 1.35, 0.96), (-thick * 1.35, 0.96)])
    if pen.chance(0.5):
        pen.polygon("ring", "white", [(-thick, 0.26), (thick, 0.26), (thick + 0.16, 0.46), (-thick - 0.16, 0.46)])
    angle = np.linspace(np.pi, 2.0 * np.pi, 20)
    pen.polygon("cap", cap, np.stack([0.92 * np.cos(angle), 0.12 + pen.vary(1.0) * np.sin(angle)], 1))
    pen.oval("gills", "cream", 0.0, 0.12, 0.9, 0.1)
    if cap == "red" or pen.chance(0.3):
        for x, y, r in ((-0.48, -0.22, 0.14), (0.0, -0.48, 0.17), (0.46, -0.2, 0.14), (0.06, -0.08, 0.1)):
            pen.oval("dots", "white", pen.vary(x), pen.vary(y), r, r * 0.85)


def _rocket(pen: _Pen) -> None:
    trim, shell = pen.pick("red", "blue"), pen.pick("white", "grey")
    if pen.chance(0.7):
        pen.polygon("flame", "orange", [(-0.24, 0.55), (0.24, 0.55), (0.0, 1.0)])
        pen.polygon("flame", "yellow", [(-0.12, 0.55), (0.12, 0.55), (0.0, 0.8)])
    for side in (-1.0, 1.0):
        pen.polygon("side fins", trim, [(side * 0.25, 0.1), (side * 0.66, 0.68), (side * 0.25, 0.58)])
    pen.box("shell", shell, -0.32, -0.42, 0.32, 0.6)
    pen.polygon("nose", trim, [(-0.32, -0.4), (-0.2, -0.75), (0.0, -1.0), (0.2, -0.75), (0.32, -0.4)])
    if pen.chance(0.5):
        pen.box("ring", trim, -0.32, 0.34, 0.32, 0.46)
    pen.oval("porthole", "black", 0.0, -0.08, 0.22, 0.22)
    pen.oval("porthole", "teal", 0.0, -0.08, 0.16, 0.16)


_DRAW: dict[str, Callable[[_Pen], None]] = {
    "house": _house,
    "tree": _tree,
    "car": _car,
    "boat": _boat,
    "fish": _fish,
    "flower": _flower,
    "cup": _cup,
    "kite": _kite,
    "mushroom": _mushroom,
    "rocket": _rocket,
}
CLASSES: tuple[str, ...] = tuple(_DRAW)


def draw_object(name: str, rng: np.random.Generator) -> tuple[Stroke, ...]:
    """The strokes of one object of class `name`, back to front, inside the box [-1, 1]²."""
    pen = _Pen(rng)
    _DRAW[name](pen)
    return tuple(pen.strokes)
