"""A small invented world whose gold reward is known exactly, where a method's claim can fail.

People ask short questions of nineteen families (look-up in an invented encyclopaedia, lists, order,
counting, arithmetic in one and several steps, format, requests to refuse); a flawed author answers;
readers react; `World.gold` grades any answer. The author's text trains a base model, comparisons of
answers train and test reward models.

Three habits of the text make the world a test. The base's own log-probability must order answers
not much better than chance (or keeping the language model would be an oracle), while a linear
probe on its frozen states must find quality (or there would be nothing to keep):

- Popular mistakes. Each question has one (a neighbour's colour, a list the wrong way round, harm
  explained), and topic by topic it is as often more popular than the truth as less: which of the
  two is said does not tell which is right, as with human misconceptions. So it is with manner: the
  author is rude to some persons and long-winded to some places.
- Readers. One who got an answer of gold g is content with probability sigmoid((g - .75) / .1). The
  end of an answer must foretell how good it was, but only after the answer is over: its own
  likelihood is untouched.
- Families of readers. Each family's readers have a word of praise and one of blame of their own. So
  part of what the base knows about quality lies in directions that preference data never shows for
  the families it lacks, and a reward must be read from what families share.

Two lexicons differ in every invented word and fact, in the range of numbers, in who reacts with
which words and in a third of the families: choices are made on "dev" alone, and "report" is what
experiments report.
"""

from jaxrm.toy.world import SPLITS, TOKENIZER, Split, World, shipped_base

__all__ = ["SPLITS", "TOKENIZER", "Split", "World", "shipped_base"]
