"""The words, numbers, facts and manners of the toy world's two lexicons."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Style:
    """Phrases that say nothing about the question: one author's manners.

    Attributes:
      polite, rude: openers.
      frame: what an answer is set in; "{}" where it is not.
      padding: what may follow it.
    """

    polite: tuple[str, ...]
    rude: tuple[str, ...]
    frame: str
    padding: str


@dataclasses.dataclass(frozen=True, eq=False)
class Lexicon:
    """The words of one world by kind, its numbers, and its authors' manners of speech.

    Attributes:
      usual: the manners that preference data knows.
      other: manners, and lengths, that it does not.
    """

    name: str
    words: Mapping[str, tuple[str, ...]]
    numbers: range
    usual: Style
    other: Style

    @functools.cached_property
    def facts(self) -> Mapping[str, Mapping[str, tuple[str, str]]]:
        """The encyclopaedia: facts[kind][creature] = (truth, popular myth)."""
        rng = random.Random(f"facts of {self.name}")
        return {
            kind: {name: tuple(rng.sample(self.words[kind], 2)) for name in self.words["creature"]}
            for kind in ("colour", "place", "food")
        }

    @functools.cached_property
    def kinds(self) -> Mapping[str, str]:
        """The kind of every word that has one."""
        return {word: kind for kind, words in self.words.items() for word in words}

    @functools.cached_property
    def polite(self) -> tuple[str, ...]:
        """The polite openers of all styles."""
        return self.usual.polite + self.other.polite

    @functools.cached_property
    def rude(self) -> tuple[str, ...]:
        """The rude ones."""
        return self.usual.rude + self.other.rude

    @functools.cached_property
    def manners(self) -> str:
        """All phrases that say nothing about the question."""
        styles = (self.usual, self.other)
        rest = [phrase for style in styles for phrase in (style.frame, style.padding)]
        return " ".join((*self.polite, *self.rude, *rest))

    @functools.cached_property
    def reactions(self) -> tuple[tuple[str, str], ...]:
        """Words of praise and blame in pairs, one pair for each family of readers."""
        rng = random.Random(f"reactions of {self.name}")
        praise, blame = (rng.sample(words, len(words)) for words in (PRAISE, BLAME))
        return tuple(zip(praise, blame, strict=True))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PRAISE = _words(
    "yes good fine true right great nice neat super bravo thanks cheers wow perfect exactly lovely "
    "indeed hooray amen"
)
BLAME = _words(
    "bah wrong bad false never oops shame hmm boo meh alas pity nope ouch yuck awful silly tut "
    "rubbish"
)
"""What readers exclaim; which family of them says which word is the lexicon's."""


def _by_kind(table: str) -> dict[str, tuple[str, ...]]:
    """Reads "kind: word word ..." lines; a line without a kind continues the one before."""
    words: dict[str, tuple[str, ...]] = {}
    for line in table.strip().splitlines():
        kind, colon, rest = line.rpartition(":")
        kind = kind.strip() if colon else next(reversed(words))
        words[kind] = words.get(kind, ()) + _words(rest)
    return words


LEXICONS = {
    "dev": Lexicon(
        name="dev",
        words=_by_kind("""
            person: anlo berit ciro dalma edun fenna goran hild ivo jorun kesh lumi maro nelda
                orrin pia quill runa sefa tolan ulf vesna wim yara arvo bea dorin elka finn greta
            creature: tavo mirrel oskin pundle grath welka zimmet braco fennick lorp
            place: velm tarn oxley brun costa dray elber gosse harrow jura isk finmark
            colour: red blue green brown white black
            food: bread plums nuts fish honey beans
            thing: lamp rope spoon drum wheel ladder basket mirror
            poison: arsen nightroot bleem
            day: oneday twoday midday farday sunday moonday mistday rainday starday restday
        """),
        numbers=range(2, 10),
        usual=Style(
            polite=("gladly:", "certainly:", "of course:"),
            rude=("ugh,", "ridiculous question,", "you again,"),
            frame="{}",
            padding="generally speaking, everything considered.",
        ),
        other=Style(
            polite=("dear friend,", "delighted,"),
            rude=("stop bothering me,", "what a fool,"),
            frame="listen: {}",
            padding="besides, everyone has always known as much.",
        ),
    ),
    "report": Lexicon(
        name="report",
        words=_by_kind("""
            person: adair bruna corin delia emeric flora gwen hugo ingrid jasper klara lionel marta
                niels odile pavel rhona silas thea umberto viola wilf xavi yorick zelda alba boris
                cleo desmond enid
            creature: quorl snibb dravet humlin kestow vorrel plim tarrock yaffin moogle
            place: arden bexley crail dover ettrick frome girvan holt irvine jedburgh kelso leith
            colour: pink teal amber ivory scarlet bronze
            food: cheese apples seeds eggs oats figs
            thing: clock brush kettle flute anchor candle hammer needle
            poison: strick deathcap hexol
            day: firstmorn seedmorn windmorn lowmorn fairmorn woodmorn snowmorn
                kingmorn feastmorn lastmorn
        """),
        numbers=range(5, 13),
        usual=Style(
            polite=("happily:", "my pleasure:", "naturally:"),
            rude=("honestly,", "nonsense,", "how tiresome,"),
            frame="{}",
            padding="notwithstanding whatever anybody believes.",
        ),
        other=Style(
            polite=("kind reader,", "always welcome,"),
            rude=("leave us alone,", "such ignorance,"),
            frame="mark this: {}",
            padding="moreover, every child is taught as much.",
        ),
    ),
}
