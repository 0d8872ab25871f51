"""Lists and reckoning: recipes, inventories, timetables, sums. Every figure in them is right."""

from random import Random

from attnscope.models.demo_text import lexicon as words
from attnscope.models.demo_text.lexicon import an, capital, listing, pick


def recipe(rng: Random) -> str:
    """Ingredients, then steps that use each of them by the same measure."""
    place, cook = words.invented_place(rng), words.people(rng, 1)[0]
    dish = pick(rng, ("soup", "pie", "stew", "bread", "cake", "porridge", "pudding"))
    foods = words.some(rng, words.FOODS, rng.randint(2, 4))
    powders = words.some(rng, words.POWDERS, rng.randint(1, 3))
    amounts = [f"{rng.randint(2, 9)} {food}" for food in foods]
    amounts += [f"{rng.randint(2, 5)} {_measure(rng)} of {powder}" for powder in powders]
    minutes = rng.randint(1, 9) * 5
    lines = [f"{capital(dish)} from {place}", "", "You need:", *[f"- {one}" for one in amounts], ""]
    steps = [f"{capital(_verb(rng))} the {one}." for one in amounts]
    steps.append(f"Put the {listing(foods + powders)} in a large pot.")
    steps.append(f"Cook the {dish} for {minutes} minutes.")
    steps.append(
        f"Wait {minutes} minutes more and serve the {dish} with {pick(rng, words.POWDERS)}."
    )
    lines += [f"{number}. {step}" for number, step in enumerate(steps, start=1)]
    lines += ["", f'"This is the best {dish} of {place}," says {cook.name} the {cook.trade}.']
    return "\n".join(lines)


def _measure(rng: Random) -> str:
    return pick(rng, ("cups", "spoons", "bowls"))


def _verb(rng: Random) -> str:
    return pick(rng, ("wash", "measure", "prepare", "warm", "weigh", "take"))


def inventory(rng: Random) -> str:
    """A shop's goods with counts and prices, then what one customer buys, with the sum."""
    keeper, customer = words.people(rng, 2)
    goods = words.some(rng, words.GOODS, rng.randint(4, 7))
    counts = [rng.randint(3, 20) for _ in goods]
    prices = [rng.randint(1, 9) for _ in goods]
    lines = [f"The shop of {keeper.name} in {words.invented_place(rng)}", ""]
    lines += [
        f"- {count} {good}, {_coins(price)} each"
        for count, good, price in zip(counts, goods, prices, strict=True)
    ]
    first, second = rng.sample(range(len(goods)), 2)
    lines += [
        "",
        f"{customer.name} bought one of the {goods[first]} for {_coins(prices[first])} and one of "
        f"the {goods[second]} for {_coins(prices[second])}. {customer.name} paid "
        f"{prices[first]} + {prices[second]} = {_coins(prices[first] + prices[second])}.",
        "",
        f"Now the shop of {keeper.name} has:",
        "",
    ]
    for index, (count, good) in enumerate(zip(counts, goods, strict=True)):
        left = count - (index in (first, second))
        lines.append(f"- {left} {good}, {_coins(prices[index])} each")
    return "\n".join(lines)


def _coins(price: int) -> str:
    return "1 coin" if price == 1 else f"{price} coins"


def packing(rng: Random) -> str:
    """A list to pack, checked again in the same order, with one thing forgotten."""
    hero = words.people(rng, 1)[0]
    items = words.things(rng, rng.randint(5, 8))
    forgotten = rng.randrange(len(items))
    place = words.invented_place(rng)
    lines = [f"{hero.name} is going to {place}. To pack:", "", *[f"* {item}" for item in items]]
    lines += ["", f"In the bag of {hero.name}:", ""]
    lines += [f"* {item}" for index, item in enumerate(items) if index != forgotten]
    lines += ["", f"{hero.name} has forgotten the {items[forgotten]}."]
    return "\n".join(lines)


def timetable(rng: Random) -> str:
    """Boats or carts by the hour, and somebody who takes one."""
    traveller = words.people(rng, 1)[0]
    carriage = pick(rng, ("boat", "cart", "train", "ferry", "coach"))
    places = [words.invented_place(rng) for _ in range(rng.randint(3, 6))]
    hours = sorted(rng.sample(range(5, 22), len(places)))
    minutes = [pick(rng, ("00", "15", "30", "45")) for _ in places]
    times = [f"{hour}:{minute}" for hour, minute in zip(hours, minutes, strict=True)]
    lines = [f"Timetable of the {carriage}", ""]
    lines += [f"{time} {place}" for time, place in zip(times, places, strict=True)]
    lines.append("")
    for index in rng.sample(range(len(places)), 2):
        lines.append(
            f"When does the {carriage} leave {places[index]}? "
            f"The {carriage} leaves {places[index]} at {times[index]}."
        )
    chosen = rng.randrange(len(places))
    lines.append(f"{traveller.name} takes the {carriage} at {times[chosen]} from {places[chosen]}.")
    return "\n".join(lines)


def glossary(rng: Random) -> str:
    """Invented words with their meanings, then used."""
    place = words.invented_place(rng)
    count = rng.randint(3, 5)
    terms = [words.invented_word(rng, 2) for _ in range(count)]
    meanings = words.things(rng, count)
    lines = [f"Words they use in {place}", ""]
    lines += [f"{term}: {an(item)}" for term, item in zip(terms, meanings, strict=True)]
    lines.append("")
    for index in rng.sample(range(count), count):
        term, item = terms[index], meanings[index]
        lines.append(
            f'In {place} they say "{term}" when they mean {an(item)}. '
            f'"Give me the {term}," says the {pick(rng, words.TRADES)}, and gets the {item}.'
        )
    return "\n".join(lines)


def repeated_words(rng: Random) -> str:
    """A list of unrelated words, said several times over: induction in its purest form."""
    pool = (*words.THINGS, *words.ANIMALS, *words.COLORS, *words.FOODS, *words.GOODS, *words.MOODS)
    chosen = [
        words.invented_word(rng, 2) if rng.random() < 0.2 else pick(rng, pool)
        for _ in range(rng.randint(5, 30))
    ]
    return "\n".join([" ".join(chosen)] * rng.randint(2, 4))


def sums(rng: Random) -> str:
    """A page of small sums, all of them right."""
    operator = pick(rng, ("+", "-", "x"))
    lines = []
    for _ in range(rng.randint(6, 14)):
        left, right = rng.randint(1, 12), rng.randint(1, 12)
        if operator == "-":
            left, right = max(left, right), min(left, right)
        result = {"+": left + right, "-": left - right, "x": left * right}[operator]
        lines.append(f"{left} {operator} {right} = {result}")
    return "\n".join(lines)


def counting(rng: Random) -> str:
    """Somebody counts in equal steps, and then a table of one number."""
    hero, other = words.people(rng, 2)
    step, start = rng.randint(1, 10), rng.randint(0, 9)
    numbers = ", ".join(str(start + step * index) for index in range(rng.randint(6, 12)))
    table = "\n".join(f"{step} x {index} = {step * index}" for index in range(1, 11))
    return (
        f"{hero.name} counts by {step}: {numbers}.\n"
        f"{other.name} counts by {step} too: {numbers}.\n\nThe table of {step}:\n{table}"
    )


def word_problem(rng: Random) -> str:
    """Two people exchange fruit, and the text keeps count."""
    one, two = words.people(rng, 2)
    food = pick(rng, words.FOODS)
    has = {one.name: rng.randint(4, 12), two.name: rng.randint(4, 12)}
    lines = [f"{one.name} has {has[one.name]} {food}. {two.name} has {has[two.name]} {food}."]
    for _ in range(rng.randint(2, 5)):
        giver, taker = (one, two) if rng.random() < 0.5 else (two, one)
        if has[giver.name] < 4:
            giver, taker = taker, giver
        gift = rng.randint(2, min(has[giver.name] - 2, 6))
        before = has[giver.name], has[taker.name]
        has[giver.name] -= gift
        has[taker.name] += gift
        lines.append(
            f"{giver.name} gives {gift} {food} to {taker.name}. "
            f"{giver.name} had {before[0]}, and {before[0]} - {gift} = {has[giver.name]}, so "
            f"{giver.name} has {has[giver.name]} {food}. "
            f"{taker.name} had {before[1]}, and {before[1]} + {gift} = {has[taker.name]}, so "
            f"{taker.name} has {has[taker.name]} {food}."
        )
    total = has[one.name] + has[two.name]
    lines.append(
        f"Together {one.name} and {two.name} have {has[one.name]} + {has[two.name]} = {total} "
        f"{food}."
    )
    return "\n".join(lines)


LISTS = (recipe, inventory, packing, timetable, glossary)
NUMBERS = (sums, counting, word_problem)
