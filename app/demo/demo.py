"""`gemma4-mlx demo`: the model inside the package sees, hears, translates and answers, with the time each part took.

How that looks is `demo_screen`; what picture it is shown, `demo_picture`.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from gemma4_mlx.byte_sizes import physical_memory

from ..exit_codes import one_line
from ..models.model_choice import largest_that_fits
from ..terminal import note
from .demo_picture import TwoShapes, draw_two_shapes, random_things
from .demo_recording import RECORDING, what_is_said
from .demo_screen import Answer, DemoScreen, Part, screen_for_stdout

if TYPE_CHECKING:
    from gemma4_mlx.generation import Generation
    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor

LANGUAGES = ("French", "Spanish", "Italian")
QUESTION = "Does my data leave this Mac?"
_MAX_TOKENS = 64
_SECONDS_FOR_YOU = 5


def demo(microphone: bool) -> None:
    """Run the parts on stdout and end with the command for a real Gemma 4 that hears and fits this machine.

    Args:
        microphone: listen to the person too, if there is a microphone.

    Raises:
        CheckpointError: the built-in model is not whole.
    """
    screen = screen_for_stdout()
    with screen.busy("waking up"):
        started = time.perf_counter()
        import gemma4_mlx as g4
        from gemma4_mlx.checkpoint import resolve

        folder = resolve("demo")
        model, processor = g4.load(folder)
        seconds = time.perf_counter() - started
    screen.opening(sum(file.stat().st_size for file in folder.glob("*.safetensors")), seconds)
    rng = random.Random()
    _look(screen, model, processor, draw_two_shapes(random_things(rng), rng))
    _listen(screen, model, processor)
    if microphone:
        _listen_to_you(screen, model, processor)
    screen.show(
        Part("Answers a question", asked=QUESTION),
        lambda: [Answer(_answer(model, processor, QUESTION).text)],
    )
    screen.ending(largest_that_fits(physical_memory(), hearing=True))


def _look(screen: DemoScreen, model: Gemma4, processor: Processor, picture: TwoShapes) -> None:
    question = "What is in this picture?"
    content = [{"type": "image", "image": picture.image}, {"type": "text", "text": question}]
    screen.show(
        Part("Looks at a picture drawn just now", asked=question, image=picture.image),
        lambda: [
            Answer(_answer(model, processor, [{"role": "user", "content": content}]).text, expected=picture.sentence)
        ],
    )


def _listen(screen: DemoScreen, model: Gemma4, processor: Processor) -> None:
    """Write down the recording, then translate it."""
    import gemma4_mlx as g4
    from gemma4_mlx.log_mel import SAMPLE_RATE
    from gemma4_mlx.processing.audio import load_audio

    samples = load_audio(RECORDING)
    screen.show(
        Part(f"Listens to {len(samples) / SAMPLE_RATE:.1f} s of a voice it has never heard", samples=samples),
        lambda: [Answer(g4.transcribe(model, processor, RECORDING, "English").text, expected=what_is_said())],
    )
    screen.show(
        Part("Translates what it heard", continues=True),
        lambda: [
            Answer(g4.transcribe(model, processor, RECORDING, "English", language).translation or "", label=language)
            for language in LANGUAGES
        ],
    )


def _listen_to_you(screen: DemoScreen, model: Gemma4, processor: Processor) -> None:
    """Write down what is said into the microphone; without one, say so and leave it."""
    import numpy as np

    import gemma4_mlx as g4

    from ..microphone import Microphone, MicrophoneError, devices, find_device

    blocks = []
    try:
        with Microphone(find_device(None, devices())) as microphone:
            name = microphone.device.name
            note("", f"{name} listens for {_SECONDS_FOR_YOU} s: say some digits, such as three seven one")
            end = time.monotonic() + _SECONDS_FOR_YOU
            while (left := end - time.monotonic()) > 0:
                blocks.append(microphone.read(left))
            samples = np.concatenate(blocks)
            warnings = [] if samples.any() else microphone.warnings()
    except MicrophoneError as error:
        note(f"note: {one_line(error)}")
        return
    for warning in warnings:
        note(f"note: {warning}")
    screen.show(
        Part("Listens to you", samples=samples),
        lambda: [Answer(g4.transcribe(model, processor, samples, "English").text)],
    )


def _answer(model: Gemma4, processor: Processor, messages: object) -> Generation:
    import gemma4_mlx as g4

    return g4.generate(model, processor, messages, max_tokens=_MAX_TOKENS, temperature=0.0)
