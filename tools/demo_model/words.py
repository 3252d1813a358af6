"""What the demonstration model can hear: spoken words, how they are written down, how they are translated.

Pure text: nothing here makes a sound. An utterance is a list of *spoken* words ("three", "oh", "forty", "seven");
``write`` turns it into the transcript the documented prompt asks for (digits for numbers), ``translate`` into French,
Spanish or Italian with numbers spelt out.
"""

from __future__ import annotations

import random

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = [
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBER_WORDS = [*DIGITS, "oh", *TEENS, *TENS, "hundred"]

# English command: French, Spanish, Italian (the familiar imperative, as one speaks to a machine)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "yes": ("oui", "sí", "sì"),
    "no": ("non", "no", "no"),
    "stop": ("arrête", "para", "fermati"),
    "go": ("va", "ve", "vai"),
    "left": ("gauche", "izquierda", "sinistra"),
    "right": ("droite", "derecha", "destra"),
    "up": ("haut", "arriba", "su"),
    "down": ("bas", "abajo", "giù"),
    "start": ("commence", "empieza", "comincia"),
    "pause": ("pause", "pausa", "pausa"),
    "play": ("joue", "reproduce", "riproduci"),
    "next": ("suivant", "siguiente", "successivo"),
    "back": ("retour", "atrás", "indietro"),
    "open": ("ouvre", "abre", "apri"),
    "close": ("ferme", "cierra", "chiudi"),
    "help": ("aide", "ayuda", "aiuto"),
    "hello": ("bonjour", "hola", "ciao"),
    "goodbye": ("au revoir", "adiós", "arrivederci"),
    "thanks": ("merci", "gracias", "grazie"),
    "please": ("s'il te plaît", "por favor", "per favore"),
    "save": ("enregistre", "guarda", "salva"),
    "cancel": ("annule", "cancela", "annulla"),
    "delete": ("supprime", "borra", "cancella"),
    "repeat": ("répète", "repite", "ripeti"),
    "louder": ("plus fort", "más alto", "più forte"),
    "quieter": ("moins fort", "más bajo", "più piano"),
    "send": ("envoie", "envía", "invia"),
    "call": ("appelle", "llama", "chiama"),
    "home": ("maison", "casa", "casa"),
    "light": ("lumière", "luz", "luce"),
    "door": ("porte", "puerta", "porta"),
    "window": ("fenêtre", "ventana", "finestra"),
    "music": ("musique", "música", "musica"),
    "today": ("aujourd'hui", "hoy", "oggi"),
    "tomorrow": ("demain", "mañana", "domani"),
    "yesterday": ("hier", "ayer", "ieri"),
    "wait": ("attends", "espera", "aspetta"),
    "again": ("encore", "otra vez", "ancora"),
    "faster": ("plus vite", "más rápido", "più veloce"),
    "slower": ("plus lentement", "más lento", "più lento"),
}
SPOKEN = [*NUMBER_WORDS, *COMMANDS]
LANGUAGES = ["French", "Spanish", "Italian"]

_FRENCH = [
    "zéro",
    "un",
    "deux",
    "trois",
    "quatre",
    "cinq",
    "six",
    "sept",
    "huit",
    "neuf",
    "dix",
    "onze",
    "douze",
    "treize",
    "quatorze",
    "quinze",
    "seize",
    "dix-sept",
    "dix-huit",
    "dix-neuf",
]
_FRENCH_TENS = ["vingt", "trente", "quarante", "cinquante", "soixante", "soixante", "quatre-vingt", "quatre-vingt"]
_SPANISH = [
    "cero",
    "uno",
    "dos",
    "tres",
    "cuatro",
    "cinco",
    "seis",
    "siete",
    "ocho",
    "nueve",
    "diez",
    "once",
    "doce",
    "trece",
    "catorce",
    "quince",
    "dieciséis",
    "diecisiete",
    "dieciocho",
    "diecinueve",
    "veinte",
    "veintiuno",
    "veintidós",
    "veintitrés",
    "veinticuatro",
    "veinticinco",
    "veintiséis",
    "veintisiete",
    "veintiocho",
    "veintinueve",
]
_SPANISH_TENS = ["treinta", "cuarenta", "cincuenta", "sesenta", "setenta", "ochenta", "noventa"]
_SPANISH_HUNDREDS = [
    "ciento",
    "doscientos",
    "trescientos",
    "cuatrocientos",
    "quinientos",
    "seiscientos",
    "setecientos",
    "ochocientos",
    "novecientos",
]
_ITALIAN = [
    "zero",
    "uno",
    "due",
    "tre",
    "quattro",
    "cinque",
    "sei",
    "sette",
    "otto",
    "nove",
    "dieci",
    "undici",
    "dodici",
    "tredici",
    "quattordici",
    "quindici",
    "sedici",
    "diciassette",
    "diciotto",
    "diciannove",
]
_ITALIAN_TENS = ["venti", "trenta", "quaranta", "cinquanta", "sessanta", "settanta", "ottanta", "novanta"]


def say_number(n: int) -> list[str]:
    """The English words of 0 … 999, without "and"."""
    words: list[str] = []
    if n >= 100:
        words += [DIGITS[n // 100], "hundred"]
        n %= 100
        if n == 0:
            return words
    if n >= 20:
        words.append(TENS[n // 10 - 2])
        if n % 10:
            words.append(DIGITS[n % 10])
    elif n >= 10:
        words.append(TEENS[n - 10])
    else:
        words.append(DIGITS[n])
    return words


def spell(n: int, language: str) -> str:
    """0 … 999 in French, Spanish or Italian words."""
    return {"French": _french, "Spanish": _spanish, "Italian": _italian}[language](n)


def _french(n: int) -> str:
    if n >= 100:
        head = "cent" if n < 200 else _FRENCH[n // 100] + " cent"
        if n % 100 == 0:
            return head if n < 200 else head + "s"
        return head + " " + _french(n % 100)
    if n < 20:
        return _FRENCH[n]
    tens, ones = divmod(n, 10)
    if tens in (7, 9):
        tens, ones = tens - 1, ones + 10
    stem = _FRENCH_TENS[tens - 2]
    if ones == 0:
        return stem + "s" if tens == 8 else stem
    if ones in (1, 11) and tens < 8:
        return f"{stem} et {_FRENCH[ones]}"
    return f"{stem}-{_FRENCH[ones]}"


def _spanish(n: int) -> str:
    if n >= 100:
        if n == 100:
            return "cien"
        head = _SPANISH_HUNDREDS[n // 100 - 1]
        return head if n % 100 == 0 else head + " " + _spanish(n % 100)
    if n < 30:
        return _SPANISH[n]
    tens, ones = divmod(n, 10)
    return _SPANISH_TENS[tens - 3] + (f" y {_SPANISH[ones]}" if ones else "")


def _italian(n: int) -> str:
    if n >= 100:
        head = "cento" if n < 200 else _ITALIAN[n // 100] + "cento"
        return head if n % 100 == 0 else head + _italian(n % 100)
    if n < 20:
        return _ITALIAN[n]
    tens, ones = divmod(n, 10)
    stem = _ITALIAN_TENS[tens - 2]
    if ones == 0:
        return stem
    if ones in (1, 8):
        stem = stem[:-1]
    return stem + ("tré" if ones == 3 else _ITALIAN[ones])


def parse(spoken: list[str]) -> list[int | str]:
    """Spoken words → numbers and commands in order. "forty seven" is 47, "three hundred five" 305."""
    out: list[int | str] = []
    i = 0
    while i < len(spoken):
        word = spoken[i]
        if word not in NUMBER_WORDS:
            out.append(word)
            i += 1
            continue
        if word == "hundred" or (word in DIGITS[1:] and spoken[i + 1 : i + 2] == ["hundred"]):
            value, i = (100, i + 1) if word == "hundred" else (DIGITS.index(word) * 100, i + 2)
            if i < len(spoken) and spoken[i] in NUMBER_WORDS and spoken[i] not in ("zero", "oh"):
                below, i = _below_hundred(spoken, i)
                value += below
        else:
            value, i = _below_hundred(spoken, i)
        out.append(value)
    return out


def _below_hundred(spoken: list[str], i: int) -> tuple[int, int]:
    word = spoken[i]
    if word in TENS:
        value = 10 * (TENS.index(word) + 2)
        if i + 1 < len(spoken) and spoken[i + 1] in DIGITS[1:]:
            return value + DIGITS.index(spoken[i + 1]), i + 2
        return value, i + 1
    if word in TEENS:
        return TEENS.index(word) + 10, i + 1
    return (0 if word == "oh" else DIGITS.index(word)), i + 1


def write(spoken: list[str]) -> str:
    """The transcript: digits for numbers, commands as words, single spaces."""
    return " ".join(str(part) for part in parse(spoken))


def translate(spoken: list[str], language: str) -> str:
    """The translation: numbers spelt out, commands by table."""
    return " ".join(translate_one(part, language) for part in parse(spoken))


def translate_one(part: int | str, language: str) -> str:
    """One number or command of ``parse`` in another language."""
    return spell(part, language) if isinstance(part, int) else COMMANDS[part][LANGUAGES.index(language)]


def random_utterance(rng: random.Random) -> list[str]:
    """One utterance as in training: mostly digit strings, then numbers, commands, commands with digits."""
    kind = rng.random()
    if kind < 0.5:
        # One string in five repeats itself a lot: what comes next is then known by its place alone.
        digits = rng.sample(DIGITS, 3) if rng.random() < 0.2 else DIGITS
        words = [rng.choice(digits) for _ in range(rng.choice([1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]))]
        return ["oh" if word == "zero" and rng.random() < 0.2 else word for word in words]
    if kind < 0.68:
        return say_number(rng.choice([rng.randrange(10, 100), rng.randrange(10, 100), rng.randrange(100, 1000)]))
    if kind < 0.92:
        return [rng.choice(list(COMMANDS)) for _ in range(rng.choice([1, 1, 2, 2, 3]))]
    command = rng.choice(["call", "play", "open", "close", "send", "delete", "save", "repeat", "start", "cancel"])
    if rng.random() < 0.7:
        return [command, *(rng.choice(DIGITS) for _ in range(rng.randrange(1, 5)))]
    return [command, *say_number(rng.randrange(10, 100))]
