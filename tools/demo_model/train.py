"""The stages in order, each with its own checkpoint in the work folder: what is done is not done again.

    speech   every training voice speaks (minutes)
    audio    the audio tower alone   } at the same time,
    vision   the vision tower alone  } one process each
    joint    everything together in two processes; the towers go on learning from their own heads, and from the
             answers too once the decoder has found out how to read them
    polish   the same once more with another mix, more translations and large pictures and less of what is easy, and
             with the decoder's weights as 4 bits hold them

Budgets are minutes of wall clock, 105 in all; learning-rate schedules run on that clock, so the two
cores should have nothing else to do: each step waits for both processes. An interrupted stage goes on from its
checkpoint, written every two minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from . import architecture, audio_tower, decoder, held_out, tokenizer, vision_tower, voices
from .decoder import Course
from .speech_data import SpeechData

JOINT = Course(
    minutes=45.0,
    mix={"speech": 0.56, "picture": 0.27, "chat": 0.17},
    budgets={0: 4, 70: 1.5, 140: 1.5, 280: 3.5},
    peak=1.5e-3,
    easy=0.1,
    attach=0.3,
)
POLISH = Course(
    minutes=45.0,
    mix={"speech": 0.46, "picture": 0.42, "chat": 0.12},
    budgets={0: 0.8, 70: 0.6, 140: 1.3, 280: 4},
    peak=4e-4,
    heads=0.03,
    translated=0.7,
    four_bits=True,
)
COURSES = {"joint": JOINT, "polish": POLISH}
MINUTES = {"audio": 15.0, "vision": 15.0} | {name: course.minutes for name, course in COURSES.items()}
SEEDS = {"speech": 3, "audio": 1, "vision": 5, "joint": 7, "polish": 13}
PROCESSES = 2


def speech(work: Path) -> Path:
    """Folder of the cached voices; raises voices.MissingPackagesError."""
    voices.check_packages()
    folder = work / "speech"
    with ProcessPoolExecutor(PROCESSES) as pool:
        list(pool.map(partial(voices.make_voice, folder=folder, seed=SEEDS["speech"]), voices.TRAINING_VOICES))
    return folder


def together() -> decoder.Together:
    """A fresh model with its throw-away heads."""
    return decoder.Together(architecture.build(tokenizer.VOCAB_SIZE, tokenizer.SPECIAL_IDS), tokenizer.build())


def stage(name: str, work: Path, rank: int = 0) -> None:
    """Runs one stage to its end in this process (``rank``: which of the stage's processes)."""
    torch.set_num_threads(1)
    torch.manual_seed(SEEDS[name])
    checkpoint, minutes = work / f"{name}.pt", MINUTES[name]
    whole = together()
    if name == "vision":
        vision_tower.train(whole.vision, SEEDS[name], checkpoint, minutes)
    elif name == "audio":
        dev = held_out.groups(40, SEEDS[name])
        audio_tower.train(whole.audio, SpeechData(work / "speech", SEEDS[name]), dev, checkpoint, minutes, batch=32)
    else:
        if name == "joint":
            for part, source in ((whole.audio, "audio.pt"), (whole.vision, "vision.pt")):
                part.load_state_dict(torch.load(work / source, weights_only=True)["stage"])
        else:
            whole.load_state_dict(torch.load(work / "joint.pt", weights_only=True)["together"])
        dist.init_process_group(
            "gloo", init_method=f"file://{(work / f'meeting-{name}').resolve()}", rank=rank, world_size=PROCESSES
        )
        data = SpeechData(work / "speech", 100 * SEEDS[name] + rank)
        decoder.train(whole, data, checkpoint, COURSES[name], SEEDS[name])


def _done(work: Path, name: str) -> bool:
    """Whether a stage, or all that one would need of it, is in the work folder."""
    path = work / f"{name}.pt"
    return path.exists() and torch.load(path, weights_only=True, mmap=True)["spent"] >= MINUTES[name] * 60


def run(work: Path) -> None:
    """Every stage; RuntimeError names the log of one that failed."""
    work.mkdir(parents=True, exist_ok=True)
    speech(work)
    for name in COURSES:
        (work / f"meeting-{name}").unlink(missing_ok=True)
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    groups = [[("audio", 0), ("vision", 0)], *([(name, rank) for rank in range(PROCESSES)] for name in COURSES)]
    for index, group in enumerate(groups):
        if any(all(_done(work, name) for name, _ in later) for later in groups[index:]):
            continue
        running = []
        for name, rank in group:
            command = [
                sys.executable,
                "-m",
                "tools.demo_model",
                "--work",
                str(work),
                "--stage",
                name,
                "--rank",
                str(rank),
            ]
            log = work / (f"{name}.log" if rank == 0 else f"{name}{rank}.log")
            with log.open("a") as file:
                running.append((log, subprocess.Popen(command, env=environment, stdout=file, stderr=file)))
        failed = [log for log, process in running if process.wait() != 0]
        if failed:
            raise RuntimeError(f"training failed, see {failed[0]}; run the same command again to go on from there")
