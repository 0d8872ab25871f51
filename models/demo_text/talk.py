"""Dialogue, letters and songs: texts in which people quote one another."""

from itertools import pairwise
from random import Random

from attnscope.models.demo_text import lexicon as words
from attnscope.models.demo_text.lexicon import an, capital, listing, pick


def question_and_answer(rng: Random) -> str:
    """Facts are stated, then asked for in another order; every answer repeats its fact."""
    one, two = words.people(rng, 2)
    items = words.things(rng, rng.randint(3, 6))
    holders = words.some(rng, words.ROOMS, len(items))
    facts = [f"the {item} is in {room}" for item, room in zip(items, holders, strict=True)]
    lines = [f"{one.name}: I have moved everything. {' '.join(capital(f) + '.' for f in facts)}"]
    lines.append(f"{two.name}: That is a lot to remember. May I ask you some questions?")
    lines.append(f"{one.name}: {pick(rng, ('Yes, ask.', 'Of course.', 'Please do.', 'Go on.'))}")
    for index in rng.sample(range(len(items)), len(items)):
        lines.append(f"{two.name}: Where is the {items[index]}?")
        lines.append(f"{one.name}: {capital(facts[index])}.")
    lines.append(f"{two.name}: Thank you, {one.name}. Now I know where everything is.")
    return "\n".join(lines)


def rumor(rng: Random) -> str:
    """A sentence goes round a village, and everybody repeats it."""
    cast = words.people(rng, rng.randint(3, 5))
    village = words.invented_place(rng)
    animal, item = pick(rng, words.ANIMALS), words.thing(rng)
    news = pick(
        rng,
        (
            f"{an(animal)} has taken the {item}",
            f"the {item} of {village} can sing",
            f"the {animal} at {pick(rng, words.SPOTS)} is the richest in {village}",
            f"the mayor has given {an(item)} to {an(animal)}",
            f"{cast[-1].name} has seen {an(animal)} with {an(item)}",
        ),
    )
    lines = [f'"Have you heard? {capital(news)}," said {cast[0].name} the {cast[0].trade}.']
    for teller, listener in pairwise(cast):
        lines.append(
            f'"Who told you that {news}?" asked {listener.name} the {listener.trade}. '
            f'"I saw it at {pick(rng, words.SPOTS)}," said {teller.name} '
            f"{pick(rng, words.ADVERBS)}."
        )
        lines.append(f"So {listener.name} went home and told everybody that {news}.")
    lines.append(f"And that is how all of {village} came to believe that {news}.")
    return "\n".join(lines)


def letters(rng: Random) -> str:
    """A letter and its answer, which quotes it."""
    one, two = words.people(rng, 2)
    village, other_village = words.invented_place(rng), words.invented_place(rng)
    item, second = words.things(rng, 2)
    animal = pick(rng, words.ANIMALS)
    news = [
        f"The {animal} {pick(rng, words.ANIMAL_DEEDS)}.",
        f"Yesterday I {pick(rng, words.DEEDS)}.",
        f"I have bought {an(item)} for {rng.randint(2, 20)} coins.",
        f"The weather in {village} is {pick(rng, words.WEATHERS)}.",
        f"I still keep your {second} in {pick(rng, words.ROOMS)}.",
        f"In {pick(rng, words.SEASONS)} I will come to {other_village}.",
    ]
    chosen = rng.sample(news, rng.randint(3, 5))
    quoted = rng.sample(chosen, 2)
    replies = words.some(rng, REPLIES, 2)
    bye = pick(rng, ("Your friend", "With love", "Yours", "Warmly"))
    return (
        f"Dear {two.name},\n\n{' '.join(chosen)} Please write to me soon.\n\n{bye},\n{one.name}\n\n"
        f"Dear {one.name},\n\nThank you for your letter. You write: "
        f'"{quoted[0]}" {replies[0]} You also write: "{quoted[1]}" {replies[1]} '
        f"Greetings from {other_village} to {village}.\n\n{bye},\n{two.name}"
    )


REPLIES = (
    "I could hardly believe it.",
    "That made me laugh.",
    "My grandmother says the same.",
    "I read that line twice.",
    "How I wish I had been there.",
    "I told everybody at once.",
    "That is good news.",
    "Please tell me more about it.",
)


def song(rng: Random) -> str:
    """Verses with a refrain that returns word for word."""
    (hero,) = words.people(rng, 1)
    village = words.invented_place(rng)
    call = f"{words.invented_word(rng, 2)}, {words.invented_word(rng, 1)}"
    first, second = words.some(rng, REFRAINS, 2)
    refrain = (
        f"Oh {call}, oh {call},\n{first.format(village=village, name=hero.name)}\n"
        f"{second.format(village=village, name=hero.name)}"
    )
    verses = []
    for animal in words.some(rng, words.ANIMALS, rng.randint(3, 4)):
        verses.append(
            f"The {animal} {pick(rng, words.ANIMAL_DEEDS)},\nand {hero.name} "
            f"{pick(rng, words.DEEDS)}."
        )
        verses.append(refrain)
    return f"The Song of {hero.name}\n\n" + "\n\n".join(verses)


REFRAINS = (
    "the road goes home to {village}.",
    "and nobody sleeps in {village} tonight.",
    "ring the bells for {name}.",
    "the moon is a lamp for {name}.",
    "bring bread and honey to {village}.",
    "the river sings of {village}.",
    "who dances now with {name}?",
    "the stars are counting {name}.",
)


def riddles(rng: Random) -> str:
    """A contest of riddles between two people."""
    one, two = words.people(rng, 2)
    lines = [
        f"{one.name} the {one.trade} and {two.name} the {two.trade} sat by the fire and told "
        f"riddles."
    ]
    for riddle, answer in rng.sample(RIDDLES, rng.randint(2, 4)):
        asker, other = (one, two) if rng.random() < 0.5 else (two, one)
        lines.append(
            f'"{riddle} What am I?" asked {asker.name}. "You are {answer}," said {other.name}. '
            f'"Yes," said {asker.name}, "I am {answer}."'
        )
    lines.append(f"And so they went on until the fire was out, {one.name} and {two.name}.")
    return "\n\n".join(lines)


RIDDLES = (
    ("I have hands but I cannot hold.", "a clock"),
    ("I have teeth but I cannot eat.", "a comb"),
    ("I speak when I am struck and sleep on a rope.", "a bell"),
    ("I am full of holes and still hold water.", "a sponge"),
    ("I follow you all day and leave you at night.", "a shadow"),
    ("I grow shorter as I give you light.", "a candle"),
    ("I have a neck but no head.", "a bottle"),
    ("I run all day and never leave my bed.", "a river"),
    ("I have many leaves and no branch.", "a book"),
    ("I go up when the rain comes down.", "an umbrella"),
)


def roll_call(rng: Random) -> str:
    """A teacher calls names; all answer, and the absent are named again."""
    teacher, *pupils = words.people(rng, rng.randint(5, 8))
    absent = set(rng.sample(range(len(pupils)), rng.randint(1, 2)))
    lines = [f"{teacher.name} opened the book and read the names."]
    for index, pupil in enumerate(pupils):
        answer = "Nobody answered." if index in absent else f'"Here," said {pupil.name}.'
        lines.append(f'"{pupil.name}?" {answer}')
    missing = listing([pupils[index].name for index in sorted(absent)])
    here = listing([pupil.name for i, pupil in enumerate(pupils) if i not in absent])
    verb = "is" if len(absent) == 1 else "are"
    lines.append(f'"So {here} are here, and {missing} {verb} not here," said {teacher.name}.')
    return "\n".join(lines)


TALK = (question_and_answer, rumor, letters, song, riddles, roll_call)
