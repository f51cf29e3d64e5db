"""Phrases about picture-book scenes and whether they are true, from what is visible in a view of the scene.

Visible means enough pixels: a view is any crop, even one with patches taken away, and the renderer counts the pixels
of each piece that are left. This is image-level knowledge, the only kind the tiny CLIP learns from. What shows only a
few pixels is neither true nor false, and is left out of the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from excel_core.world.backgrounds import BACKGROUNDS
from excel_core.world.objects import CLASSES, COLOURS
from excel_core.world.phrases import GROUND_WORDS, STATEMENTS
from excel_core.world.scenes import Piece, Scene

__all__ = ["CLASS_TEMPLATES", "TEMPLATE", "Captions", "Phrase", "build_phrases", "facts_of_piece"]

TEMPLATE = "a clean origami {}."
CLASS_TEMPLATES = (TEMPLATE, "a photo of a {}.", "{}", "a picture with a {}.", "a clean origami {}")
_GROUND_TEMPLATES = (TEMPLATE, "{}", "a photo of the {}.", "a picture with {} behind.")
_COLOUR_TEMPLATES = ("something {}", "a clean origami {} thing.")

# A fact counts as visible from this share of the view's pixels on. A part is smaller than its class or a ground.
_MIN_SHARE = {"owner": 0.012, "ground": 0.05, "part": 0.003}


@dataclass(frozen=True)
class Phrase:
    """A text and the facts that must all be visible for it to be true."""

    text: str
    facts: tuple[str, ...]


def facts_of_piece(piece: Piece) -> tuple[str, ...]:
    """Everything that is visible when this piece is."""
    if not piece.owner:
        return (f"ground/{piece.part}",)
    part = f"{piece.owner}/{piece.part}"
    coloured_parts = [f"{part}/{colour}" for colour in piece.colours]
    # Pixels are counted by part: of a part in several colours they do not tell how much each colour has.
    plain_colours = [f"colour/{colour}" for colour in piece.colours] if len(piece.colours) == 1 else []
    return (piece.owner, part, *coloured_parts, *plain_colours)


def _statement_facts(owner: str, needs: str) -> tuple[str, ...]:
    """The facts of one entry of STATEMENTS: 'round crown apples' names two parts, one of which has two words."""
    facts: list[str] = []
    words = needs.split(" ")
    while words:
        first_two = " ".join(words[:2])  # "bright panels/yellow" is a part in a colour
        length = 2 if len(words) > 1 and first_two.split("/")[0] in _TWO_WORD_PARTS else 1
        facts.append(f"{owner}/{' '.join(words[:length])}")
        words = words[length:]
    return tuple(facts)


_TWO_WORD_PARTS = ("round crown", "pointed crown", "front sail", "bright panels", "side fins")


def build_phrases() -> tuple[Phrase, ...]:
    """Every phrase that captions are made of, in a fixed order."""
    phrases = [Phrase(t.format(name), (name,)) for name in CLASSES for t in CLASS_TEMPLATES]
    for owner, statements in STATEMENTS.items():
        for needs, statement in statements:
            facts = _statement_facts(owner, needs)
            phrases.append(Phrase(f"{TEMPLATE.format(owner)} it {statement}", facts))
            phrases.append(Phrase(f"something with {statement.removeprefix('has ')}", facts))
    for ground, words in GROUND_WORDS.items():
        phrases += [Phrase(t.format(word), (f"ground/{ground}",)) for word in words for t in _GROUND_TEMPLATES]
    phrases += [Phrase(t.format(c), (f"colour/{c}",)) for c in COLOURS for t in _COLOUR_TEMPLATES]
    # The same words can come from two classes ("something with a round handle"): then either may make them true,
    # which one Phrase cannot say, so such words are dropped.
    counts: dict[str, int] = {}
    for phrase in phrases:
        counts[phrase.text] = counts.get(phrase.text, 0) + 1
    return tuple(phrase for phrase in phrases if counts[phrase.text] == 1)


@dataclass(frozen=True, eq=False)
class Captions:
    """All phrases with the arithmetic of their truth. F facts, P phrases."""

    phrases: tuple[Phrase, ...]

    @cached_property
    def facts(self) -> tuple[str, ...]:
        """The names of the F facts that phrases use, sorted."""
        return tuple(sorted({fact for phrase in self.phrases for fact in phrase.facts}))

    @cached_property
    def class_phrases(self) -> NDArray[np.int64]:
        """Numbers of the phrases that name a class and nothing else."""
        return np.array([i for i, phrase in enumerate(self.phrases) if phrase.facts[0] in CLASSES])

    @cached_property
    def needs(self) -> NDArray[np.bool_]:
        """(P, F) bool: phrase p needs fact f."""
        index = {fact: i for i, fact in enumerate(self.facts)}
        table = np.zeros((len(self.phrases), len(self.facts)), dtype=bool)
        for row, phrase in enumerate(self.phrases):
            table[row, [index[fact] for fact in phrase.facts]] = True
        return table

    @cached_property
    def thresholds(self) -> NDArray[np.float64]:
        """(F,) float64: share of the view's pixels from which on a fact counts as visible."""
        return np.array([_threshold(fact) for fact in self.facts])

    def facts_of(self, pieces: Sequence[Piece]) -> NDArray[np.bool_]:
        """(len(pieces), F) bool: which facts each piece shows."""
        index = {fact: i for i, fact in enumerate(self.facts)}
        table = np.zeros((len(pieces), len(self.facts)), dtype=bool)
        for row, piece in enumerate(pieces):
            table[row, [index[fact] for fact in facts_of_piece(piece) if fact in index]] = True
        return table

    def truth(self, shares: NDArray[np.float64], least: float = 0.0) -> NDArray[np.int8]:
        """shares (B, F) of the view's pixels that show each fact → (B, P) int8: 1 true, 0 false, -1 hard to tell.

        least: share below which no fact counts as visible, whatever its own threshold.
        """
        visible = (shares >= np.maximum(self.thresholds, least)).astype(np.float32)  # (B, F)
        absent = (shares == 0).astype(np.float32)
        needs = self.needs.astype(np.float32)
        # As matrix products: a phrase is true where all facts it needs are visible, false where one of them is absent.
        true = visible @ needs.T >= needs.sum(axis=1) - 0.5
        false = absent @ needs.T > 0.5
        return np.where(true, 1, np.where(false, 0, -1)).astype(np.int8)

    def scene_truth(self, scene: Scene) -> NDArray[np.int8]:
        """(P,) int8: truth of every phrase of a whole scene, as in `truth`."""
        counts = np.bincount(scene.piece_map.ravel(), minlength=len(scene.pieces))
        shares = (counts / counts.sum()) @ self.facts_of(scene.pieces)
        truth: NDArray[np.int8] = self.truth(shares[None])[0]
        return truth


def _threshold(fact: str) -> float:
    if fact in CLASSES:
        return _MIN_SHARE["owner"]
    return _MIN_SHARE["ground" if fact.removeprefix("ground/") in BACKGROUNDS else "part"]
