"""The words of the demo texts, and the names that are invented anew for each document.

Every list is small enough for a model of two million parameters to know each word well, and the
names are built from syllables, so that a name costs several tokens and the only way to predict its
second appearance is to copy the first.
"""

from dataclasses import dataclass
from random import Random

# Common beginnings, vowels and endings stand more than once: they are drawn more often.
ONSETS = (
    "b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "b", "d",
    "k", "l", "m", "n", "r", "t", "v", "br", "dr", "fl", "gr", "kl", "pr", "qu", "sh", "st", "th",
    "tr", "y",
)  # fmt: skip
VOWELS = ("a", "a", "a", "e", "e", "e", "i", "i", "o", "o", "u", "ai", "ea", "oo")
INNER = ("", "", "", "l", "m", "n", "r", "s")
CODAS = ("", "", "l", "n", "r", "s", "m", "th", "x", "nd", "rk", "lo", "na", "ra", "mi")
PLACE_ENDINGS = ("ford", "wick", "mere", "dale", "haven", "ton", "bridge", "moor", "fell", "port")

TRADES = (
    "baker", "miller", "weaver", "potter", "clockmaker", "gardener", "sailor", "teacher",
    "blacksmith", "painter", "shepherd", "doctor", "tailor", "carpenter", "beekeeper", "fiddler",
    "glassblower", "librarian", "lighthouse keeper", "mapmaker", "candle maker", "ferryman",
)  # fmt: skip
COLORS = (
    "red", "green", "blue", "yellow", "white", "black", "grey", "brown", "purple", "orange",
    "pink", "golden", "scarlet", "violet",
)  # fmt: skip
MATERIALS = (
    "brass", "silver", "wooden", "copper", "paper", "glass", "iron", "stone", "velvet", "clay",
    "woollen", "bronze", "pewter", "amber",
)  # fmt: skip
MANNERS = (
    "old", "small", "tiny", "broken", "shining", "heavy", "crooked", "quiet", "curious", "round",
    "ancient", "dusty", "soft", "lucky", "secret", "wonderful",
)  # fmt: skip
THINGS = (
    "key", "lamp", "clock", "bell", "kettle", "mirror", "map", "ring", "button", "compass",
    "whistle", "hat", "coat", "drum", "spoon", "box", "book", "kite", "boat", "umbrella", "violin",
    "basket", "lantern", "teapot", "ladder", "blanket", "telescope", "feather", "crown", "letter",
)  # fmt: skip
HOLDERS = (
    "a drawer", "a chest", "a jar", "a cupboard", "a leather bag", "a tin", "a barrel",
    "an iron box", "a basket", "a deep pocket",
)  # fmt: skip
ANIMALS = (
    "fox", "owl", "cat", "dog", "goat", "crow", "heron", "hedgehog", "badger", "goose", "mouse",
    "frog", "donkey", "otter", "rabbit", "turtle", "squirrel", "swan", "bear", "magpie",
)  # fmt: skip
SPOTS = (
    "the old bridge", "the market square", "the mill", "the well", "the north gate", "the harbor",
    "the apple orchard", "the bakery", "the stone tower", "the school", "the river bank",
    "the empty barn", "the hill", "the edge of the forest", "the clock tower", "the windmill",
    "the ferry landing", "the garden wall", "the library", "the lighthouse",
)  # fmt: skip
ROOMS = (
    "the kitchen", "the attic", "the cellar", "the garden", "the hall", "the workshop", "the barn",
    "the tower", "the library", "the bedroom",
)  # fmt: skip
FOODS = (
    "apples", "pears", "plums", "carrots", "onions", "eggs", "walnuts", "turnips", "cherries",
    "mushrooms", "potatoes", "beans", "lemons", "figs", "peas", "tomatoes",
)  # fmt: skip
POWDERS = (
    "flour", "sugar", "milk", "honey", "butter", "oats", "rice", "cream", "salt", "barley", "water",
    "cinnamon",
)  # fmt: skip
GOODS = (
    "buttons", "candles", "ribbons", "nails", "ropes", "pencils", "mugs", "bells", "brooms",
    "needles", "marbles", "lanterns", "spoons", "kites", "hats", "boxes", "stamps", "shells",
    "feathers", "coins",
)  # fmt: skip
WEATHERS = (
    "rainy", "windy", "foggy", "bright", "cold", "warm", "snowy", "stormy", "misty", "sunny",
)  # fmt: skip
SEASONS = ("spring", "summer", "autumn", "winter")
MOODS = (
    "happy", "sad", "tired", "proud", "surprised", "hungry", "calm", "worried", "brave", "shy",
    "cheerful", "grateful",
)  # fmt: skip
ADVERBS = (
    "softly", "loudly", "slowly", "quickly", "kindly", "gently", "proudly", "sadly", "happily",
    "quietly", "bravely", "carefully",
)  # fmt: skip
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
)  # fmt: skip
SAYINGS = (
    "A slow boat still finds the sea.",
    "Every lamp was once a spark.",
    "The wind does not ask for the road.",
    "Small hands can hold a large moon.",
    "Who plants in the rain eats in the sun.",
    "A closed door is only a wall with hope.",
    "The river remembers every stone.",
    "Bread shared is bread doubled.",
    "Even the tallest tower begins with one brick.",
    "Never sell the rain to buy a cloud.",
    "A good question is half of the journey.",
    "The owl is late but never lost.",
    "Count the stars and you will sleep well.",
    "Honey is made by many wings.",
    "What is mended is loved twice.",
    "The longest night also has a morning.",
    "Listen first, and then ring the bell.",
    "An empty basket has room for everything.",
    "Kind words weigh nothing and carry far.",
    "The best map is a friend.",
)
DEEDS = (
    "mended the roof", "painted the door", "counted the sheep", "swept the stairs", "fed the geese",
    "rang the bell", "wrote a long letter", "baked a dark loaf", "carried water up the hill",
    "planted a row of beans", "polished the spoons", "read an old book", "lit the lanterns",
    "played the fiddle", "sorted the buttons", "closed the shutters", "made a pot of tea",
    "folded the blankets", "chopped the wood", "drew a map of the stars", "hummed a quiet tune",
    "looked out of the window",
)  # fmt: skip
ANIMAL_DEEDS = (
    "slept on the warm stones", "ran along the wall", "watched the clouds", "hid under the stairs",
    "drank from the well", "sat on the roof", "looked at the moon", "stole a piece of cheese",
    "followed the cart", "sang to nobody", "chased its own shadow", "waited by the door",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody in a document: an invented name, a trade, and the pronouns to use."""

    name: str
    trade: str
    they: str
    them: str
    their: str


def pick(rng: Random, words: tuple[str, ...]) -> str:
    """One word of a list, faster than ``random.choice``."""
    return words[int(rng.random() * len(words))]


def some(rng: Random, words: tuple[str, ...], count: int) -> list[str]:
    """``count`` different words of a list, in random order."""
    return rng.sample(words, count)


def an(phrase: str) -> str:
    """The phrase with its indefinite article: ``an owl``, ``a red kite``."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def spoken(sentence: str) -> str:
    """The sentence as it stands before ``" said somebody``: a comma for its full stop."""
    return sentence[:-1] + "," if sentence.endswith(".") else sentence


def capital(sentence: str) -> str:
    """The sentence with its first letter in upper case."""
    return sentence[0].upper() + sentence[1:]


def listing(parts: list[str]) -> str:
    """An English enumeration: ``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def invented_word(rng: Random, syllables: int) -> str:
    """A pronounceable word that nobody has seen before, in lower case."""
    parts = [pick(rng, ONSETS) + pick(rng, VOWELS) for _ in range(syllables)]
    return pick(rng, INNER).join(parts) + pick(rng, CODAS)


def invented_name(rng: Random) -> str:
    """A person's name of two or three syllables."""
    return invented_word(rng, 2).capitalize()


def invented_place(rng: Random) -> str:
    """A village's name: an invented word, often with an English ending."""
    if rng.random() < 0.6:
        return invented_word(rng, 1 + (rng.random() < 0.4)).capitalize() + pick(rng, PLACE_ENDINGS)
    return invented_word(rng, 2).capitalize()


def people(rng: Random, count: int) -> list[Person]:
    """``count`` people with different trades."""
    cast = []
    for trade in some(rng, TRADES, count):
        pronouns = ("she", "her", "her") if rng.random() < 0.5 else ("he", "him", "his")
        they, them, their = pronouns
        name = invented_name(rng)
        cast.append(Person(name=name, trade=trade, they=they, them=them, their=their))
    return cast


def thing(rng: Random) -> str:
    """A thing worth telling of: ``brass key``, ``small red kite``."""
    draw = rng.random()
    first = pick(rng, COLORS if draw < 0.35 else MATERIALS if draw < 0.7 else MANNERS)
    if rng.random() < 0.15:
        return f"{pick(rng, MANNERS)} {pick(rng, COLORS)} {pick(rng, THINGS)}"
    return f"{first} {pick(rng, THINGS)}"


def things(rng: Random, count: int) -> list[str]:
    """``count`` things whose nouns differ."""
    nouns = some(rng, THINGS, count)
    kinds = (COLORS, MATERIALS, MANNERS)
    return [f"{pick(rng, kinds[int(rng.random() * 3)])} {noun}" for noun in nouns]
