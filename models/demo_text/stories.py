"""Stories: small plots whose people, things and sentences come back.

Each function writes one document. Plots are built so that copying pays: a question is asked again
word for word, a refrain returns, a chain grows by one link a line, an earlier sentence is retold.
"""

from random import Random

from attnscope.models.demo_text import lexicon as words
from attnscope.models.demo_text.lexicon import an, capital, listing, pick, spoken


def lost_thing(rng: Random) -> str:
    """Something is lost; one neighbour after another is asked for it in the same words."""
    village, item = words.invented_place(rng), words.thing(rng)
    hero, *others = words.people(rng, rng.randint(3, 5))
    holder, saying = pick(rng, words.HOLDERS), pick(rng, words.SAYINGS)
    spots = words.some(rng, words.SPOTS, len(others) + 1)
    title = " ".join(map(str.capitalize, item.split()))
    lines = [
        f"The {title} of {village}",
        f"In the village of {village} there lived {an(hero.trade)} named {hero.name}. {hero.name} "
        f"had one treasure, {an(item)}, and kept it in {holder} near {spots[-1]}. Every morning "
        f'{hero.name} looked at the {item} and said, "{saying}"',
        f"One {pick(rng, words.WEATHERS)} morning {hero.name} opened {_known(holder)}, and the "
        f"{item} was gone. {hero.name} was very {pick(rng, ('sad', 'worried', 'surprised'))}.",
    ]
    asked = f'have you seen my {item}?" asked {hero.name}.'
    for index, other in enumerate(others[:-1]):
        spot, hint = spots[index : index + 2]
        animal = pick(rng, words.ANIMALS)
        lines.append(
            f"So {hero.they} went to {spot} and found {other.name} the {other.trade}. "
            f'"{other.name}, {asked} "I have not seen your {item}," said {other.name}, "but '
            f'{an(animal)} was running to {hint}. Go to {hint} and ask again."'
        )
    finder = others[-1]
    lines.append(
        f"At {spots[len(others) - 1]} sat {finder.name} the {finder.trade}, holding the {item}. "
        f'"{finder.name}, {asked} "Yes," said {finder.name}, "I have seen your {item}. '
        f'{_excuse(rng, item)}"'
    )
    lines.append(
        f"{hero.name} took the {item} home to {village} and put it back in {_known(holder)}. "
        f"That evening "
        f"{listing([person.name for person in (hero, *others)])} ate together, and {hero.name} "
        f'said, "{saying}"'
    )
    return "\n\n".join(lines)


def _known(holder: str) -> str:
    return "the " + holder.split(" ", 1)[1]


def _excuse(rng: Random, item: str) -> str:
    reasons = (
        f"The {item} was cold, so I kept it warm.",
        f"I only wanted to look at the {item} in the light of the moon.",
        f"The wind carried the {item} to me, and I waited for you.",
        f"The {item} was broken, and I have mended it for you.",
        f"A crow gave the {item} to me for a piece of cheese.",
    )
    return pick(rng, reasons)


LINKS = (
    ("lamp", "lit"), ("bread", "baked"), ("clock", "mended"), ("boat", "built"), ("kite", "made"),
    ("bell", "rang"), ("tower", "painted"), ("pie", "forgot"), ("map", "drew"), ("coat", "wore"),
)  # fmt: skip
CHASERS = (
    "watched", "chased", "loved", "carried", "woke", "followed", "found", "feared", "thanked",
    "counted", "hid", "missed",
)  # fmt: skip


def cumulative(rng: Random) -> str:
    """A tale that grows by one link a line, each line repeating all that came before."""
    (hero,) = words.people(rng, 1)
    noun, verb = LINKS[rng.randrange(len(LINKS))]
    tail = f"the {noun} that {hero.name} {verb}"
    lines = [f"This is {tail}."]
    links = rng.randint(4, 6)
    actors = words.some(rng, words.ANIMALS, links - 1) + words.some(rng, words.TRADES, 1)
    for actor, deed in zip(actors, words.some(rng, CHASERS, links), strict=True):
        adjective = pick(rng, words.MANNERS) + " " if rng.random() < 0.4 else ""
        tail = f"the {adjective}{actor} that {deed} {tail}"
        lines.append(f"This is {tail}.")
    return "\n".join(lines)


GOALS = (
    ("move", "the great stone", "did not move"),
    ("open", "the iron gate", "did not open"),
    ("wake", "the sleeping giant", "did not wake"),
    ("ring", "the silent bell", "did not ring"),
    ("light", "the wet candle", "did not burn"),
    ("catch", "the silver fish", "swam away"),
    ("climb", "the glass hill", "was too smooth"),
    ("read", "the ancient letter", "made no sense"),
)


def three_tries(rng: Random) -> str:
    """Three people try the same thing; the third finds a gentler way."""
    verb, target, failure = GOALS[rng.randrange(len(GOALS))]
    village, tools = words.invented_place(rng), words.things(rng, 3)
    one, two, three = words.people(rng, 3)
    kin = pick(rng, ("friends", "cousins", "neighbors"))
    saying = pick(rng, words.SAYINGS)
    lines = [
        f"Three {kin} lived in {village}: {one.name}, {two.name} and {three.name}. They all wanted "
        f"to {verb} {target}, because the mayor of {village} had promised "
        f"{an(words.thing(rng))} to anyone who could {verb} {target}."
    ]
    for person, order, tool in ((one, "first", tools[0]), (two, "second", tools[1])):
        lines.append(
            f'{person.name} tried {order}. {person.name} brought {an(tool)} and said, "With this '
            f'{tool} I will {verb} {target}." {person.name} worked all day, but {target} {failure}.'
        )
    lines.append(
        f"Then came {three.name}. {capital(three.they)} had {an(tools[2])} and no plan. "
        f"{capital(three.they)} sat down beside {target} and said {pick(rng, words.ADVERBS)}, "
        f'"{saying}" And {pick(rng, ("at once", "at last", "a moment later", "before sunset"))} '
        f"{three.name} could {verb} {target}."
    )
    lines.append(
        f'"How did you do it?" asked {one.name}. "How did you do it?" asked {two.name}. '
        f"\"I only said, '{spoken(saying)}'\" answered {three.name}."
    )
    return "\n\n".join(lines)


def journey(rng: Random) -> str:
    """A walk of several days with something found each day, and a recollection at the end."""
    hero, friend = words.people(rng, 2)
    stops = rng.randint(3, 6)
    places = [words.invented_place(rng) for _ in range(stops + 1)]
    found = words.things(rng, stops)
    walk = pick(rng, ("walked", "rode", "sailed", "travelled"))
    lines = [
        f"{hero.name} the {hero.trade} had to go from {places[0]} to {places[-1]}, which is "
        f"{words.NUMBER_WORDS[stops]} days away in {pick(rng, words.SEASONS)}."
    ]
    for day in range(stops):
        animal = pick(rng, words.ANIMALS)
        lines.append(
            f"On the {words.ORDINALS[day]} day {hero.name} {walk} from {places[day]} to "
            f"{places[day + 1]}. It was {pick(rng, words.WEATHERS)}, and {an(animal)} "
            f"{pick(rng, words.ANIMAL_DEEDS)}. In {places[day + 1]} {hero.they} found "
            f"{an(found[day])}."
        )
    lines.append(
        f"In {places[-1]} {friend.name} the {friend.trade} was waiting. "
        f'"What did you find on the way?" asked {friend.name}.'
    )
    recalled = [
        f"In {place} I found {an(item)}." for place, item in zip(places[1:], found, strict=True)
    ]
    lines.append(
        f'"{spoken(" ".join(recalled))}" said {hero.name}, and put {_all_of(found)} on the table.'
    )
    return "\n\n".join(lines)


def _all_of(items: list[str]) -> str:
    return listing([f"the {item}" for item in items])


def chain_of_gifts(rng: Random) -> str:
    """One gift goes from hand to hand and comes back."""
    cast = words.people(rng, rng.randint(3, 5))
    gift, village = words.thing(rng), words.invented_place(rng)
    saying = pick(rng, words.SAYINGS)
    lines = [
        f"It was the last day of {pick(rng, words.SEASONS)} in {village}, and {cast[0].name} the "
        f"{cast[0].trade} had {an(gift)} but nobody to give it to."
    ]
    for giver, taker in zip(cast, [*cast[1:], cast[0]], strict=True):
        lines.append(
            f"{giver.name} gave the {gift} to {taker.name} the {taker.trade}. "
            f'"Thank you for the {gift}, {giver.name}," said {taker.name}. "{saying}"'
            if taker is not cast[0]
            else f"{giver.name} gave the {gift} to {taker.name}. {taker.name} laughed "
            f'{pick(rng, words.ADVERBS)}. "This is my own {gift}," said {taker.name}. "{saying}"'
        )
    return "\n\n".join(lines)


def village_day(rng: Random) -> str:
    """A day in a village, told in free sentences, with earlier ones retold in the evening."""
    village, saying = words.invented_place(rng), pick(rng, words.SAYINGS)
    cast = words.people(rng, 3)
    items = words.things(rng, 4)
    told: list[str] = []
    paragraphs = [
        f"{capital(pick(rng, words.SEASONS))} came to {village}. {cast[0].name} was "
        f"{an(cast[0].trade)}, {cast[1].name} was {an(cast[1].trade)}, and {cast[2].name} was "
        f"{an(cast[2].trade)} with {an(items[0])}."
    ]
    for _ in range(rng.randint(2, 5)):
        sentences = [_event(rng, village, cast, items) for _ in range(rng.randint(3, 5))]
        told.extend(sentences)
        paragraphs.append(" ".join(sentences))
    teller, listener = rng.sample(cast, 2)
    retold = " ".join(rng.sample([one for one in told if '"' not in one] or told, 1))
    paragraphs.append(
        f'In the evening {teller.name} told {listener.name} about the day. "{spoken(retold)}" said '
        f'{teller.name}. "{spoken(saying)}" answered {listener.name}, and {village} went to sleep.'
    )
    return "\n\n".join(paragraphs)


def _event(rng: Random, village: str, cast: list[words.Person], items: list[str]) -> str:
    who, other = rng.sample(cast, 2)
    item, animal = items[rng.randrange(len(items))], pick(rng, words.ANIMALS)
    spot, deed = pick(rng, words.SPOTS), pick(rng, words.DEEDS)
    draw = rng.randrange(12)
    if draw < 3:
        return f"{who.name} {' and '.join(words.some(rng, words.DEEDS, 2))}."
    if draw < 5:
        return f"The {animal} of {village} {pick(rng, words.ANIMAL_DEEDS)}."
    if draw < 7:
        return f"{who.name} met {other.name} at {spot}, and they talked about the {item}."
    events = (
        f'"Where is the {item}?" asked {who.name}. "The {item} is in {pick(rng, words.ROOMS)}," '
        f"said {other.name}.",
        f"{who.name} put the {item} in {pick(rng, words.ROOMS)} and {deed}.",
        f"It was {an(pick(rng, words.WEATHERS))} day, and {who.name} felt {pick(rng, words.MOODS)} "
        f"because the {item} was {pick(rng, ('safe', 'lost', 'new', 'clean', 'gone', 'ready'))}.",
        f"{who.name} the {who.trade} carried the {item} to {spot}, and {other.name} the "
        f"{other.trade} carried it back.",
        f'"{other.name}!" called {who.name} {pick(rng, words.ADVERBS)}, and {other.name} came to '
        f"{spot}.",
    )
    return events[draw - 7]


STORIES = (lost_thing, cumulative, three_tries, journey, chain_of_gifts, village_day)
