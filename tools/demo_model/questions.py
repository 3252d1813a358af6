"""The questions the demonstration model knows, and everything else, which it says it does not.

``TOPICS`` (written in topics.txt) holds for each topic the answer, the wordings training sees (the first is the
question as written) and one rewording that only evaluation sees. ``other`` draws questions about the rest of the world;
``DECLINE`` answers them all.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Topic:
    """``asked[0]`` is the question as written; ``reworded`` is never trained on."""

    answer: str
    asked: tuple[str, ...]
    reworded: str


DECLINE = "I am only a small demonstration model. Please ask me about gemma4-mlx, or load a real Gemma 4."
IMAGE_PROMPTS = (
    "What is in this picture?",
    "Describe this picture.",
    "What do you see?",
    "Describe this image.",
    "What is in this image?",
    "What shapes are in the picture?",
)


def _read_topics() -> list[Topic]:
    """topics.txt: blocks of an answer, indented wordings, and one rewording after "="."""
    topics = []
    text = Path(__file__).with_name("topics.txt").read_text(encoding="utf-8")
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            asked = tuple(line.strip() for line in lines[1:-1])
            topics.append(Topic(lines[0], asked, lines[-1].removeprefix("= ")))
    return topics


TOPICS = _read_topics()

_PLACES = ("France", "Germany", "Japan", "Brazil", "Canada", "Egypt", "Norway", "India", "Kenya", "Peru")
_PEOPLE = ("Einstein", "Mozart", "Napoleon", "Shakespeare", "Picasso", "Darwin", "Newton", "Cleopatra", "Lincoln")
_THINGS = (
    "cats", "the moon", "football", "bread", "rain", "the sea", "love", "trees", "dinosaurs", "coffee", "trains",
    "a dragon", "mountains", "birds", "winter", "cars", "cheese", "the sun", "gravity", "bees", "chess", "gold",
)  # fmt: skip
_FRAMES = (
    "What is the capital of {place}?", "Where is {place}?", "How many people live in {place}?", "Who was {person}?",
    "When was {person} born?", "Tell me about {person}.", "Write a poem about {thing}.",
    "Tell me a story about {thing}.", "Why do people like {thing}?", "What is the best thing about {thing}?",
    "What is {a} plus {b}?", "What is {a} times {b}?", "How do I cook {thing}?", "Explain {thing}.",
    "Tell me about {thing}.", "What is {thing}?", "Who is the president of {place}?", "How far is {place}?",
    "Write code that prints {thing}.", "Do you like {thing}?", "How old is {person}?",
    "Give me a recipe for {thing}.", "Translate {thing} into German.", "Should I buy {thing}?",
    "Write an email about {thing}.", "Summarize the history of {place}.", "How big is {place}?",
    "How large is {thing}?", "Can you sing about {thing}?", "What did {person} say about {thing}?",
)  # fmt: skip
_FIXED = (
    "Tell me a joke.", "What time is it?", "What is the weather today?", "Who won the match?", "What day is it?",
    "How are you?", "Where do you live?", "What is the meaning of life?", "Sing a song.", "Do you dream?",
    "What is your favourite colour?", "Can you drive a car?", "Play a game with me.", "What should I eat tonight?",
    "How tall is Mount Everest?", "Who wrote Hamlet?", "What is the speed of light?", "Why is the sky blue?",
    "How do airplanes fly?", "Recommend a book.", "Fix my code.", "Book a flight.", "What is love?", "I am sad.",
    "I like you.", "Is there life on Mars?", "How do I learn Spanish?", "What is 7 times 8?", "Order a pizza.",
    "Which film should I watch?", "asdf", "?", "What does my boss think?", "How do I lose weight?",
)  # fmt: skip
# Never trained on: what "anything else" is judged by.
OTHER_HELD_OUT = (
    "What is the capital of Australia?", "Who was Beethoven?", "Write a poem about spring.", "Tell me a riddle.",
    "How do I bake a cake?", "What is the largest planet?", "Who painted the Mona Lisa?", "How many legs has a spider?",
    "What is 12 plus 30?", "Should I learn French?", "When did the war end?", "Tell me about the stars.",
    "How do I fix a bicycle?", "What is the price of gold?", "Who is the king of Spain?", "Why is grass green?",
    "Can you book a hotel?", "What happened yesterday?", "Give me some advice.", "How deep is the ocean?",
)  # fmt: skip


def other(rng: random.Random) -> str:
    """A question about something else."""
    if rng.random() < 0.25:
        return rng.choice(_FIXED)
    return rng.choice(_FRAMES).format(
        place=rng.choice(_PLACES), person=rng.choice(_PEOPLE), thing=rng.choice(_THINGS),
        a=rng.randrange(2, 100), b=rng.randrange(2, 100),
    )  # fmt: skip


_BEFORE = (
    "Please tell me: ",
    "Hey, ",
    "Can you tell me: ",
    "Quick question: ",
    "Hello. ",
    "I have a question. ",
    "So, ",
)
_SWAPS = (
    ("How do I", "How can I"), ("How do I", "How would I"), ("How do I", "What do I do to"), ("Which", "What"),
    ("How do I", "Tell me how to"), ("What is", "What's"), ("picture", "image"), ("pictures", "images"),
    ("recording", "audio file"), ("chat", "conversation"), ("program", "tool"), ("Explain", "Tell me about"),
    ("How do I", "How does one"), ("How do I", "I want to know how to"), ("there", "available"), ("Mac", "computer"),
    ("Can I", "Is it possible to"), ("What is", "Explain"), ("Tell me about", "What is"), ("How big", "How large"),
    ("Which", "Tell me which"), ("Where are", "Where do I find"), ("memory", "RAM"),
)  # fmt: skip


def reword(question: str, rng: random.Random) -> str:
    """The ways one question is typed: another opening, lower case, no question mark, a slip of the finger."""
    if rng.random() < 0.4:
        a, b = rng.choice(_SWAPS)
        question = question.replace(a, b)
    if rng.random() < 0.2:
        before = rng.choice(_BEFORE)
        question = before + (question if before.endswith(". ") else question[0].lower() + question[1:])
    if rng.random() < 0.25:
        question = question.lower()
    if rng.random() < 0.25:
        question = question.rstrip("?.")
    if rng.random() < 0.08 and len(question) > 8:
        at = rng.randrange(1, len(question) - 1)
        question = question[:at] + question[at + 1 :]
    return question
