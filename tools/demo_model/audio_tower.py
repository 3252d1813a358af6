"""Stage 1: the audio tower alone, with two throw-away heads on its soft tokens.

CTC over the spoken words makes each soft token say "this word ended here" or nothing; where a clip was put together
from single words, a frame-by-frame word label tells it what it is hearing, without which CTC sits on a plateau for
most of an hour. The heads stay in the training checkpoint; only tower and projection go into the model.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Gemma4ForConditionalGeneration

from .speech_data import RATE, Clip, SpeechData, log_mel
from .words import SPOKEN

BLANK = 0
LABELS = {word: index + 1 for index, word in enumerate(SPOKEN)}
LABELS["oh"] = LABELS["zero"]  # written the same; hearing them apart is not asked for


class AudioStage(nn.Module):
    """Mel frames → soft tokens [B, T, hidden], CTC logits and frame logits [B, T, words + 1]."""

    def __init__(self, model: Gemma4ForConditionalGeneration) -> None:
        super().__init__()
        self.tower = model.model.audio_tower
        self.project = model.model.embed_audio
        hidden = self.project.text_hidden_size
        self.ctc = nn.Linear(hidden, len(SPOKEN) + 1)
        self.frame = nn.Linear(hidden, len(SPOKEN) + 1)
        channels_last(self.tower.subsample_conv_projection)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        tokens = self.project(self.tower(features, mask).last_hidden_state)
        return tokens, self.ctc(tokens), self.frame(tokens)


def channels_last(subsample: nn.Module) -> None:
    """The same two convolutions with channels innermost, as their LayerNorm wants them: four times as fast on a CPU.

    Clips of 4k + 1 frames (see ``pad``) need no mask in here: what follows their end is and stays zero.
    """

    def forward(features: torch.Tensor, mask: torch.Tensor):
        exact = bool((mask.sum(1) % 4 == 1).all())
        hidden = features.unsqueeze(1)
        for layer in (subsample.layer0, subsample.layer1):
            if not exact:
                hidden = hidden * mask[:, None, :, None]
            hidden = layer.conv(hidden.to(memory_format=torch.channels_last))
            hidden = layer.act(layer.norm(hidden.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
            mask = mask[:, ::2]
        batch, _, length, _ = hidden.shape
        return subsample.input_proj_linear(hidden.permute(0, 2, 3, 1).reshape(batch, length, -1)), mask

    subsample.forward = forward


def pad(mels: list[np.ndarray], crop: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Mels [T, 128] of different lengths → features [B, T, 128] (zeros after the end) and mask [B, T].

    ``crop``: every clip to 4k + 1 frames, which is faster to train on.
    """
    if crop:
        mels = [mel[: len(mel) - (len(mel) - 1) % 4] for mel in mels]
    longest = max(len(mel) for mel in mels)
    longest += -longest % 4
    features = torch.zeros(len(mels), longest, 128)
    mask = torch.zeros(len(mels), longest, dtype=torch.bool)
    for row, mel in enumerate(mels):
        features[row, : len(mel)] = torch.from_numpy(mel)
        mask[row, : len(mel)] = True
    return features, mask


def frame_labels(clip: Clip, tokens: int) -> np.ndarray:
    """int64 [tokens]: the word sounding (its last 60 %), 0 between words, −100 where it is too early to tell."""
    labels = np.zeros(tokens, dtype=np.int64)
    per_token = RATE * 0.04
    for start, end, word in clip.spans:
        first, last = int(start / per_token), math.ceil(end / per_token)
        labels[first : last + 1] = -100
        labels[int(first + 0.4 * (last - first)) : last] = LABELS[word]
    return labels


def losses(
    ctc: torch.Tensor, frame: torch.Tensor, mask: torch.Tensor, clips: list[Clip]
) -> tuple[torch.Tensor, torch.Tensor]:
    """CTC over the words, and cross-entropy of the frames whose word is known."""
    lengths = mask[:, ::4].sum(1)
    targets = torch.tensor([LABELS[word] for clip in clips for word in clip.words], dtype=torch.long)
    counts = torch.tensor([len(clip.words) for clip in clips])
    log_probs = ctc.float().log_softmax(-1).transpose(0, 1)
    loss_ctc = F.ctc_loss(log_probs, targets, lengths, counts, blank=BLANK, zero_infinity=True)
    labels = torch.full(ctc.shape[:2], -100)
    for row, clip in enumerate(clips):
        if clip.spans or not clip.words:
            labels[row, : lengths[row]] = torch.from_numpy(frame_labels(clip, int(lengths[row])))
    known = (labels != -100).sum().clamp(min=1)
    loss_frame = F.cross_entropy(frame.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
    return loss_ctc, loss_frame / known


def mask_spectrum(mel: np.ndarray, data: SpeechData) -> np.ndarray:
    """A band of mel bins, and now and then a moment, replaced by the mean."""
    rng = data.rng
    if rng.random() < 0.5:
        mel = mel.copy()
        width = rng.randrange(4, 20)
        low = rng.randrange(0, 128 - width)
        mel[:, low : low + width] = mel.mean()
        if rng.random() < 0.3 and len(mel) > 30:
            at = rng.randrange(0, len(mel) - 8)
            mel[at : at + rng.randrange(2, 8)] = mel.mean()
    return mel


def draw_batches(data: SpeechData, batch: int, longest: int) -> list[list[Clip]]:
    """Six batches of clips of about the same length each, in random order."""
    clips = [data.silence() if data.rng.random() < 0.04 else data.sample(longest) for _ in range(batch * 6)]
    clips = sorted((c for c in clips if 1000 < len(c.samples) < 7 * RATE), key=lambda clip: len(clip.samples))
    batches = [clips[start : start + batch] for start in range(0, len(clips), batch)]
    data.rng.shuffle(batches)
    return batches


def learning_rate(step: int, steps: int, peak: float, warm: int = 200) -> float:
    """Linear warm-up, cosine to 3 % of the peak."""
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm)))))


def greedy(logits: torch.Tensor, length: int) -> list[str]:
    """CTC logits [T, words + 1] → spoken words."""
    best = logits[:length].argmax(-1).tolist()
    names = ["", *SPOKEN]
    return [names[label] for i, label in enumerate(best) if label != BLANK and (i == 0 or best[i - 1] != label)]


def word_errors(heard: list[str], said: list[str]) -> int:
    """Levenshtein distance in words."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


@torch.no_grad()
def evaluate(stage: AudioStage, clips: dict[str, list[tuple[list[str], np.ndarray]]]) -> dict[str, float]:
    """CTC word error (%) per group of (words, samples)."""
    stage.eval()
    result = {}
    for group, pairs in clips.items():
        wrong = total = 0
        for start in range(0, len(pairs), 16):
            part = pairs[start : start + 16]
            features, mask = pad([log_mel(samples) for _, samples in part])
            logits = stage(features, mask)[1]
            for row, (words, _) in enumerate(part):
                said = ["zero" if word == "oh" else word for word in words]
                wrong += word_errors(greedy(logits[row], int(mask[row, ::4].sum())), said)
                total += len(said)
        result[group] = 100 * wrong / total
    stage.train()
    return result


def train(
    stage: AudioStage,
    data: SpeechData,
    dev: dict[str, list[tuple[list[str], np.ndarray]]],
    checkpoint: Path,
    minutes: float,
    batch: int = 24,
    peak: float = 2e-3,
) -> None:
    """Trains for ``minutes`` of wall clock; saves every two minutes and goes on from ``checkpoint`` if it exists."""
    optimizer = torch.optim.AdamW(stage.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.02)
    step, spent = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        stage.load_state_dict(saved["stage"])
        optimizer.load_state_dict(saved["optimizer"])
        step, spent = saved["step"], saved["spent"]
    started, saved_at, logged = time.monotonic() - spent, time.monotonic(), []
    waiting: list[list[Clip]] = []
    stage.train()
    while (elapsed := time.monotonic() - started) < minutes * 60:
        # The schedule runs on the clock, so that a busy machine still ends with a cooled-down model.
        progress = elapsed / (minutes * 60)
        rate = min(peak * (step + 1) / 200, learning_rate(int(progress * 10_000), 10_000, peak, 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        longest = 2 if progress < 0.05 else 4 if progress < 0.12 else 7
        if not waiting:
            waiting = draw_batches(data, batch, longest)
        clips = waiting.pop()
        features, mask = pad([mask_spectrum(log_mel(clip.samples), data) for clip in clips], crop=True)
        with torch.autocast("cpu", torch.bfloat16):
            _, ctc, frame = stage(features, mask)
        loss_ctc, loss_frame = losses(ctc, frame, mask, clips)
        loss = loss_ctc + loss_frame * (1.0 if progress < 0.5 else 0.3)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        optimizer.step()
        step += 1
        logged.append((loss_ctc.item(), loss_frame.item()))
        if step % 50 == 0:
            ctc_mean, frame_mean = np.mean(logged, axis=0)
            logged = []
            print(
                f"audio {step} {elapsed / 60:.1f} min ctc {ctc_mean:.3f} frame {frame_mean:.3f} lr {rate:.1e}",
                flush=True,
            )
        if step % 400 == 0:
            print("audio", step, {k: round(v, 1) for k, v in evaluate(stage, dev).items()}, flush=True)
        if time.monotonic() - saved_at > 120:
            _save(stage, optimizer, step, elapsed, checkpoint)
            saved_at = time.monotonic()
    _save(stage, optimizer, step, minutes * 60, checkpoint)
    print("audio done", step, {k: round(v, 1) for k, v in evaluate(stage, dev).items()}, flush=True)


def _save(stage: AudioStage, optimizer: torch.optim.Optimizer, step: int, spent: float, checkpoint: Path) -> None:
    partial = checkpoint.with_suffix(".partial")
    torch.save(
        {"stage": stage.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent}, partial
    )
    partial.rename(checkpoint)
