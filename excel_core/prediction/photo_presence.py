"""Does the CLIP see a class in a photo at all? A mask of a class that it does not see is a mask of something else.

One photo has no data set to be compared with, as doubtful labels have (evaluation/label_doubts.py). So the presence score of a
class, the photo's cosine with its text, is compared with those of the other things that excel knows by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from excel_core.cams.presence import presence_scores
from excel_core.models.clip import FrozenClip
from excel_core.models.clip_names import TINY_CLIP
from excel_core.text.class_sets import BUNDLED_CLASS_SETS, class_set_of_file
from excel_core.text.embeddings import TextEmbeddings

__all__ = ["MAX_SEEN_BETTER", "Presence", "tiny_clip_warnings"]

# Half of the other things is what chance gives: CLIP sees such a class less than a thing taken at random. On 96 held-out scenes
# of the picture-book world with its CLIP, every class that is there is above (the least of them has 0.34), and 84 % of those
# that are not there are below. Without labels there is no telling how another CLIP does; a warning changes no mask.
MAX_SEEN_BETTER = 0.5


@dataclass(frozen=True, eq=False)
class Presence:
    """What a CLIP calls `clip_name` compares a photo with: `templates` (C, D) of its classes, and `others` (N, D) of everything
    that excel knows by name, unit rows. `unknown`: classes that this CLIP cannot know."""

    clip_name: str
    class_names: tuple[str, ...]
    templates: Tensor
    others: Tensor
    unknown: frozenset[str] = frozenset()

    @classmethod
    def of(cls, names: Sequence[str], templates: Tensor, clip: FrozenClip, embeddings: TextEmbeddings) -> "Presence":
        """Of the classes `names` with `templates` (C, D), for this CLIP."""
        sets = [class_set_of_file(name) for name in (*BUNDLED_CLASS_SETS, "world")]
        words = [prompt.plain_synonyms for known in sets for prompt in known.classes]
        words += [text for known in sets for text in known.background]
        other_embeddings = embeddings.encode(clip, [sets[0].template.format(word) for word in dict.fromkeys(words)])
        drawn = {prompt.name for prompt in sets[-1].classes}
        unknown = frozenset(name for name in names if name.casefold() not in drawn) if _is_tiny(clip.name) else frozenset()
        return cls(clip.name, tuple(names), templates.to(clip.device), other_embeddings.to(clip.device), unknown)

    def doubts(self, embedding: Tensor) -> dict[str, str]:
        """embedding (D,) of a photo, unit → why a class that CLIP scarcely sees in it is doubtful, by class."""
        class_scores = presence_scores(embedding[None].float(), self.templates.float())[0]
        other_scores = presence_scores(embedding[None].float(), self.others.float())[0]
        # The class itself may be one of the others, in the same words or in nearly the same.
        share = (other_scores[None] > class_scores[:, None] + 1e-6).float().mean(dim=1)
        return {
            name: self._reason(name, float(seen_better))
            for name, seen_better in zip(self.class_names, share, strict=True)
            if name in self.unknown or seen_better > MAX_SEEN_BETTER
        }

    def _reason(self, name: str, seen_better: float) -> str:
        if name in self.unknown:
            return f"{self.clip_name} has never seen it, only drawings of other things; take another --clip"
        return f"{self.clip_name} scarcely sees it: it sees {seen_better:.0%} of {len(self.others)} other things better"


def tiny_clip_warnings(clip_name: str) -> tuple[str, ...]:
    """What to know of the built-in CLIP, where it is this one."""
    if not _is_tiny(clip_name):
        return ()
    return (
        f"{TINY_CLIP} has seen drawn scenes of the picture-book world alone: on photos its masks mean nothing; name a CLIP "
        "that has seen photos, such as --clip ViT-B-16:openai",
    )


def _is_tiny(clip_name: str) -> bool:
    return clip_name.partition(":")[0] == TINY_CLIP
