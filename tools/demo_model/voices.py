"""Speech for training: synthetic voices and recordings from Debian packages, cached as 16 kHz PCM.

Each voice writes one ``<voice>.npz`` (``pcm`` int16, ``offsets`` int64, ``words`` JSON list of spoken-word lists). The
speakers the model is judged by (flite's and festival's slt and awb) can be spoken by ``speak_flite`` for evaluation,
but ``TRAINING_VOICES`` never names them.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

from .words import COMMANDS, DIGITS, NUMBER_WORDS, SPOKEN, random_utterance, say_number

RATE = 16_000
RECORDINGS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
HELD_OUT_SPEAKERS = ("slt", "awb")
HELD_OUT_VARIANTS = ("Andrea", "adam", "belinda", "david", "f4", "m5", "steph2", "victor")
# Not speech a person would give: whispers without voicing, effects.
UNUSED_VARIANTS = ("whisper", "whisperf", "fast", "Demonic", "croak", "announcer", "UniRobot", "anikaRobot", "Tweaky")
ACCENTS = ("en-us", "en-us", "en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029", "en-us-nyc")
PACKAGES = {
    "espeak-ng": "espeak-ng",
    "flite": "flite",
    "festival": "festival festvox-kallpc16k festvox-kdlpc16k festvox-italp16k festvox-czech-dita "
    "festvox-ca-ona-hts festvox-suopuhe-lj",
}

# English digits spelt for voices of other languages: real female recordings, an accent, but unmistakable words.
RESPELT = {
    "lp_diphone": ["siro", "uan", "tu", "tri", "for", "faiv", "sics", "seven", "eit", "nain"],
    "czech_dita": ["zírou", "van", "tú", "thrí", "fór", "fajv", "siks", "sevn", "ejt", "najn"],
    "suo_fi_lj_diphone": ["siirou", "uan", "tuu", "trii", "foor", "faiv", "siks", "seven", "eit", "nain"],
    "upc_ca_ona_hts": ["sirou", "uan", "tu", "tri", "for", "faiv", "sics", "seven", "eit", "nain"],
}


class MissingPackagesError(RuntimeError):
    """A program or recording is not installed; the message is the command that installs it."""


def check_packages() -> None:
    """Raises MissingPackagesError naming everything that is not there."""
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if not RECORDINGS.exists():
        missing.append("asterisk-core-sounds-en-g722")
    for voice in ("english/kal_diphone", "english/ked_diphone", "italian/lp_diphone", "czech/czech_dita",
                  "finnish/suo_fi_lj_diphone", "catalan/upc_ca_ona_hts"):  # fmt: skip
        if not Path("/usr/share/festival/voices", voice).exists() and PACKAGES["festival"] not in missing:
            missing.append(PACKAGES["festival"])
    if missing:
        raise MissingPackagesError("speech for training is missing; install: apt-get install " + " ".join(missing))


def speak_espeak(text: str, voice: str, speed: int, pitch: int) -> np.ndarray:
    """int16 [N] at 16 kHz."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    return _from_wav(subprocess.run(command, check=True, capture_output=True).stdout)


def speak_flite(text: str, voice: str, stretch: float = 1.0, pitch: float | None = None) -> np.ndarray:
    """int16 [N] at 16 kHz. ``pitch`` is the mean F0 in Hz (None: the voice's own)."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch}"]
        if pitch is not None:
            command += ["--setf", f"int_f0_target_mean={pitch}"]
        subprocess.run([*command, "-t", text, "-o", file.name], check=True, capture_output=True)
        return _from_wav(Path(file.name).read_bytes())


def _from_wav(data: bytes) -> np.ndarray:
    import soxr

    with wave.open(io.BytesIO(data)) as reader:
        rate = reader.getframerate()
    # espeak writes a streaming header whose length field is a lie: read what is there.
    samples = np.frombuffer(data[44 : len(data) - (len(data) - 44) % 2], dtype=np.int16)
    return samples if rate == RATE else soxr.resample(samples, rate, RATE)


def festival_batch(voice: str, texts: list[str], stretches: list[float]) -> list[np.ndarray]:
    """All texts by one festival voice in one process. int16 [N] at 16 kHz each."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"(voice_{voice})"]
        for i, (text, stretch) in enumerate(zip(texts, stretches, strict=True)):
            lines.append(f"(Parameter.set 'Duration_Stretch {stretch:.2f})")
            lines.append(f'(utt.save.wave (utt.synth (Utterance Text "{text}")) "{folder}/{i}.wav" \'riff)')
        script = Path(folder, "script.scm")
        latin = voice == "czech_dita"
        script.write_text("\n".join(lines), encoding="iso-8859-2" if latin else "utf-8")
        subprocess.run(["festival", "-b", str(script)], check=True, capture_output=True)
        return [_from_wav(Path(folder, f"{i}.wav").read_bytes()) for i in range(len(texts))]


def text_of(words: list[str], rng: random.Random) -> str:
    """Spoken words as a text for a synthesizer, with the pauses people make: none, commas, or full stops."""
    separator = rng.choice([" ", " ", ", ", ", ", ". "])
    return separator.join(words)


def trim(pcm: np.ndarray, keep: int = 320) -> np.ndarray:
    """Without the silence before and after, but for ``keep`` samples."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 120)
    if loud.size == 0:
        return pcm
    return pcm[max(0, loud[0] - keep) : loud[-1] + keep]


def espeak_variants() -> list[str]:
    """Names of espeak-ng's voice variants used in training."""
    listing = subprocess.run(["espeak-ng", "--voices=variant"], check=True, capture_output=True, text=True).stdout
    names = [part[3:] for line in listing.splitlines() for part in line.split() if part.startswith("!v/")]
    return sorted(name for name in names if name not in HELD_OUT_VARIANTS and name not in UNUSED_VARIANTS)


def _sentences(rng: random.Random, count: int) -> list[list[str]]:
    """Every spoken word twice alone, then random utterances."""
    singles = [[word] for word in SPOKEN for _ in range(2)]
    return singles + [random_utterance(rng) for _ in range(count)]


def synthesize_espeak(rng: random.Random, per_variant: int) -> list[tuple[list[str], np.ndarray]]:
    """``per_variant`` utterances by every variant, each with its own accent, speed and pitch; F variants twice."""
    clips = []
    for variant in espeak_variants():
        times = 2 if variant[0] == "f" or variant.lower() in FEMALE else 1
        for _ in range(per_variant * times):
            words = random_utterance(rng)
            voice = f"{rng.choice(ACCENTS)}+{variant}"
            clips.append(
                (words, speak_espeak(text_of(words, rng), voice, rng.randrange(110, 210), rng.randrange(25, 80)))
            )
    return clips


FEMALE = {"alicia", "andrea", "annie", "aunty", "belinda", "linda", "anika", "grandma", "steph", "steph3", "shelby"}


def synthesize_flite(rng: random.Random, voice: str, count: int) -> list[tuple[list[str], np.ndarray]]:
    """Single words and utterances by one flite voice with varied tempo and pitch."""
    clips = []
    base = {"rms": 100, "kal16": 105, "kal": 105}[voice]
    for words in _sentences(rng, count):
        pitch = None if rng.random() < 0.4 else base * rng.uniform(0.8, 1.8)
        clips.append((words, speak_flite(text_of(words, rng), voice, rng.uniform(0.75, 1.3), pitch)))
    return clips


def synthesize_festival(rng: random.Random, voice: str, count: int) -> list[tuple[list[str], np.ndarray]]:
    """Utterances by one festival voice; voices of other languages speak respelt digits only."""
    if voice in RESPELT:
        plans = [[d] for d in DIGITS for _ in range(3)]
        plans += [[rng.choice(DIGITS) for _ in range(rng.randrange(1, 7))] for _ in range(count)]
        texts = [text_of([RESPELT[voice][DIGITS.index(w)] for w in words], rng) for words in plans]
    else:
        plans = _sentences(rng, count)
        texts = [text_of(words, rng) for words in plans]
    slow = 1.0 if voice in RESPELT else 0.9
    stretches = [slow * rng.uniform(0.75, 1.25) for _ in plans]
    return list(zip(plans, festival_batch(voice, texts, stretches), strict=True))


def recordings() -> list[tuple[list[str], np.ndarray]]:
    """The human recordings of single known words (Allison Smith, CC-BY-SA 3.0), trimmed."""
    import av

    files: list[tuple[str, Path]] = []
    for n in [*range(21), *range(30, 100, 10)]:
        word = say_number(n)[0]
        files += [(word, RECORDINGS / "digits" / f"{n}.g722")]
        if n:
            files += [(word, RECORDINGS / "digits" / f"h-{n}.g722")]
    files += [
        ("hundred", RECORDINGS / "digits" / "hundred.g722"),
        ("hundred", RECORDINGS / "digits" / "h-hundred.g722"),
    ]
    files += [("oh", RECORDINGS / "digits" / "oh.g722")]
    for word in ("today", "tomorrow", "yesterday"):
        files.append((word, RECORDINGS / "digits" / f"{word}.g722"))
    for word, name in (("hello", "hello"), ("goodbye", "goodbye"), ("goodbye", "vm-goodbye"), ("no", "vm-no"),
                       ("next", "vm-next"), ("repeat", "vm-repeat"), ("delete", "vm-delete")):  # fmt: skip
        files.append((word, RECORDINGS / f"{name}.g722"))
    clips = []
    for word, path in files:
        if not path.exists() or word not in {*NUMBER_WORDS, *COMMANDS}:
            continue
        with av.open(str(path), format="g722") as container:
            pcm = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
        clips.append(([word], trim(pcm)))
    return clips


TRAINING_VOICES = (
    "espeak_a", "espeak_b", "flite_rms", "flite_kal16", "flite_kal", "festival_ked_diphone", "festival_kal_diphone",
    "festival_lp_diphone", "festival_czech_dita", "festival_suo_fi_lj_diphone", "festival_upc_ca_ona_hts",
    "recordings", "flite_rms_run", "flite_kal16_run", "festival_ked_diphone_run", "espeak_run",
    "flite_rms_talk", "flite_kal16_talk", "festival_ked_diphone_talk", "espeak_talk",
)  # fmt: skip


def run_on(rng: random.Random, name: str) -> list[tuple[list[str], np.ndarray]]:
    """Spoken on, without a pause between words: digit strings and some other utterances ("_run"), or numbers and
    commands ("_talk")."""
    talk = name.endswith("_talk")
    kind, _, voice = name.removesuffix("_run").removesuffix("_talk").partition("_")
    count = {"espeak": 1000, "flite_rms": 1500, "flite_kal16": 500}.get(f"{kind}_{voice}".rstrip("_"), 600)
    if talk:
        plans = [_talk(rng) for _ in range(count * 2 // 3)]
    else:
        plans = [
            [rng.choice(DIGITS) for _ in range(rng.randrange(2, 8))] if rng.random() < 0.8 else random_utterance(rng)
            for _ in range(count)
        ]
    texts = [" ".join(words) for words in plans]
    if kind == "festival":
        return list(zip(plans, festival_batch(voice, texts, [rng.uniform(0.7, 1.1) for _ in plans]), strict=True))
    if kind == "flite":
        return [
            (words, speak_flite(text, voice, rng.uniform(0.8, 1.25), 100 * rng.uniform(0.85, 1.9)))
            for words, text in zip(plans, texts, strict=True)
        ]
    variants = espeak_variants()
    return [
        (
            words,
            speak_espeak(
                text, f"{rng.choice(ACCENTS)}+{rng.choice(variants)}", rng.randrange(120, 200), rng.randrange(25, 80)
            ),
        )
        for words, text in zip(plans, texts, strict=True)
    ]


def _talk(rng: random.Random) -> list[str]:
    """A number of two or three digits, two or three commands, or a command and a number."""
    kind = rng.random()
    number = say_number(rng.choice([rng.randrange(10, 100), rng.randrange(100, 1000)]))
    if kind < 0.35:
        return number
    commands = rng.sample(list(COMMANDS), 3)
    return commands[: rng.choice([2, 3])] if kind < 0.75 else [commands[0], *number]


def make_voice(name: str, folder: Path, seed: int = 3) -> Path:
    """Speaks everything of one training voice into ``folder/name.npz`` (kept if it is there already)."""
    target = folder / f"{name}.npz"
    if target.exists():
        return target
    rng = random.Random(f"{seed}/{name}")
    kind, _, voice = name.partition("_")
    if name.endswith(("_run", "_talk")):
        clips = run_on(rng, name)
    elif kind == "espeak":
        clips = synthesize_espeak(rng, 24)
    elif kind == "flite":
        clips = synthesize_flite(rng, voice, {"rms": 1500, "kal16": 600, "kal": 300}[voice])
    elif kind == "festival":
        clips = synthesize_festival(rng, voice, 350 if voice in RESPELT else 900)
    else:
        clips = recordings()
    clips = [(words, trim(pcm)) for words, pcm in clips]
    offsets = np.cumsum([0, *(len(pcm) for _, pcm in clips)])
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial.npz")
    np.savez(
        partial,
        pcm=np.concatenate([pcm for _, pcm in clips]).astype(np.int16),
        offsets=offsets,
        words=np.array(json.dumps([words for words, _ in clips])),
    )
    partial.rename(target)
    return target


def read_voice(path: Path) -> list[tuple[list[str], np.ndarray]]:
    """What ``make_voice`` wrote: (spoken words, int16 [N]) in order."""
    with np.load(path) as data:
        pcm, offsets, words = data["pcm"], data["offsets"], json.loads(str(data["words"]))
    return [(w, pcm[a:b]) for w, a, b in zip(words, offsets[:-1], offsets[1:], strict=True)]
