"""Stages 3 and 4: the decoder on the towers' soft tokens with the towers learning along, then the same once more.

Batches are padded on the left, so that all answers stand at the end and the KV-shared tail, more than half of the
decoder, runs over them alone, as it does when the model is used.
"""

from __future__ import annotations

import random
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn
from transformers import Gemma4ForConditionalGeneration

from . import examples, four_bits
from .audio_tower import BLANK, AudioStage, learning_rate, losses, mask_spectrum, pad
from .examples import ANSWER, END, Example
from .speech_data import RATE, SpeechData, log_mel
from .tokenizer import SPECIAL_IDS
from .vision_tower import VisionStage, cell_loss, patches
from .words import SPOKEN

COUNTS = 9
IMAGE, AUDIO, PAD = SPECIAL_IDS["<|image|>"], SPECIAL_IDS["<|audio|>"], SPECIAL_IDS["<pad>"]


def encode(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[bool]]:
    """Marked text → ids, and for each whether it is learnt. Pieces never span a mark, as when the model is used."""
    ids: list[int] = []
    learnt: list[bool] = []
    for index, part in enumerate(text.replace(END, ANSWER).split(ANSWER)):
        tokens = tokenizer.encode(part, add_special_tokens=False).ids
        ids += tokens
        learnt += [index % 2 == 1] * len(tokens)
    return ids, learnt


class Together(nn.Module):
    """The model and the throw-away heads of its two towers; ``loss`` of a batch of examples of one kind."""

    def __init__(self, model: Gemma4ForConditionalGeneration, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model = model
        self.audio = AudioStage(model)
        self.vision = VisionStage(model)
        self.tokenizer = tokenizer
        hidden = model.config.text_config.hidden_size
        # What the layer before the first full-attention one should know at every audio position: how many words have
        # ended, and which was the last. Given that, reading the n-th word is one look; without, it takes hours.
        self.count, self.last = nn.Linear(hidden, COUNTS), nn.Linear(hidden, len(SPOKEN) + 1)
        # The same for writing: which item each piece of an answer belongs to, so that the n-th of a translation finds
        # the n-th of the transcript also where words repeat.
        self.place = nn.Linear(hidden, COUNTS)
        self.early: torch.Tensor | None = None
        self.ctc: torch.Tensor | None = None
        model.model.language_model.layers[1].register_forward_hook(self._keep_early)

    def _keep_early(self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self.early = output

    def soft_tokens(
        self, batch: list[Example], budget: int, data: SpeechData | None, train_towers: bool
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Soft tokens [n, hidden] of each example (none: []), and the towers' own loss."""
        nothing = torch.zeros(())
        if batch[0].clip is not None:
            mels = [log_mel(e.clip.samples) for e in batch]
            if data is not None:
                mels = [mask_spectrum(mel, data) for mel in mels]
            features, mask = pad(mels, crop=data is not None)
            with torch.set_grad_enabled(train_towers and torch.is_grad_enabled()):
                tokens, ctc, frame = self.audio(features, mask)
            self.ctc = ctc.detach().float()
            lengths = mask[:, ::4].sum(1)
            loss = nothing
            if train_towers:
                loss_ctc, loss_frame = losses(ctc, frame, mask, [e.clip for e in batch])
                loss = loss_ctc + 0.3 * loss_frame
            return [row[:n] for row, n in zip(tokens, lengths.tolist(), strict=True)], loss
        if batch[0].picture is not None:
            pixels, positions, counts = patches([e.picture.image for e in batch], budget)
            with torch.set_grad_enabled(train_towers and torch.is_grad_enabled()):
                tokens = self.vision(pixels, positions)
            loss = nothing
            if train_towers:
                loss, _ = cell_loss(tokens, self.vision.heads, [e.picture for e in batch], positions)
            return list(torch.split(tokens, counts)), loss
        return [], nothing

    def forward(
        self,
        batch: list[Example],
        budget: int = 70,
        data: SpeechData | None = None,
        train_towers: bool = False,
        attached: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(loss of the answers, loss of the towers, share of answers right to the last token).

        ``attached`` False: the answers do not move the towers, which learn from their own heads alone.
        """
        soft, tower_loss = self.soft_tokens(batch, budget, data, train_towers)
        if not attached:
            soft = [tokens.detach() for tokens in soft]
        rows = []
        for index, example in enumerate(batch):
            ids, learnt = encode(self.tokenizer, example.text)
            if soft:
                at = ids.index(AUDIO if example.clip is not None else IMAGE)
                n = len(soft[index])
                ids = ids[:at] + [ids[at]] * n + ids[at + 1 :]
                learnt = learnt[:at] + [False] * n + learnt[at + 1 :]
            # What follows the last learnt token is never read.
            end = len(learnt) - learnt[::-1].index(True)
            rows.append((ids[:end], learnt[:end]))
        longest = max(len(ids) for ids, _ in rows)
        keep = max(len(learnt) - learnt.index(True) for _, learnt in rows) + 1
        input_ids = torch.full((len(rows), longest), PAD)
        target = torch.full((len(rows), longest), -100)
        attention = torch.zeros(len(rows), longest, dtype=torch.long)
        for row, (ids, learnt) in enumerate(rows):
            start = longest - len(ids)
            input_ids[row, start:] = torch.tensor(ids)
            attention[row, start:] = 1
            target[row, start:][torch.tensor(learnt)] = torch.tensor(ids)[torch.tensor(learnt)]
        hidden = self._decode(input_ids, attention, soft, keep)
        if batch[0].clip is not None:
            tower_loss = tower_loss + self._reading_loss(batch, (input_ids == AUDIO), soft)
            tower_loss = tower_loss + self._writing_loss(batch, target)
        logits = hidden[:, :-1] @ self.model.model.language_model.embed_tokens.weight.T.to(hidden.dtype)
        logits = torch.tanh(logits.float() / 30) * 30
        target = target[:, -keep:][:, 1:]
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-100)
        right = ((logits.argmax(-1) == target) | (target == -100)).all(-1).float().mean()
        return loss, tower_loss, right

    def _reading_loss(self, batch: list[Example], places: torch.Tensor, soft: list[torch.Tensor]) -> torch.Tensor:
        """Count of words and last word at every audio position, as the CTC head hears them; only of clips in which it
        hears as many as were said."""
        counts, lasts = [], []
        for row, example in enumerate(batch):
            best = self.ctc[row, : len(soft[row])].argmax(-1)
            starts = (best != BLANK) & (best != torch.cat([best.new_zeros(1), best[:-1]]))
            count = starts.cumsum(0)
            if int(count[-1]) == len(example.clip.words):
                names = torch.cat([best.new_zeros(1), best[starts]])
                counts.append(count.clamp(max=COUNTS - 1))
                lasts.append(names[count])
            else:
                counts.append(torch.full_like(count, -100))
                lasts.append(torch.full_like(count, -100))
        early = self.early[places].float()
        count, last = torch.cat(counts), torch.cat(lasts)
        if not (count >= 0).any():
            return early.new_zeros(())
        return F.cross_entropy(self.count(early).float(), count, ignore_index=-100) + 0.5 * F.cross_entropy(
            self.last(early).float(), last, ignore_index=-100
        )

    def _writing_loss(self, batch: list[Example], target: torch.Tensor) -> torch.Tensor:
        """Item of every piece of the answers (``target`` [B, T], −100 elsewhere)."""
        places = torch.full_like(target, -100)
        for row, example in enumerate(batch):
            answer = example.text.partition(ANSWER)[2].partition(END)[0]
            offsets = self.tokenizer.encode(answer, add_special_tokens=False).offsets
            for column, (start, _) in zip((target[row] != -100).nonzero()[:, 0].tolist(), offsets, strict=True):
                for first, end, item in example.items:
                    if first <= start < end:
                        places[row, column] = item
        known = places != -100
        if not known.any():
            return self.early.new_zeros(())
        return F.cross_entropy(self.place(self.early[known]).float(), places[known])

    def _decode(
        self, input_ids: torch.Tensor, attention: torch.Tensor, soft: list[torch.Tensor], keep: int
    ) -> torch.Tensor:
        """The last ``keep`` hidden states, computed as Gemma4Model does it from the soft tokens on."""
        language = self.model.model.language_model
        placeholders = (input_ids == AUDIO) | (input_ids == IMAGE)
        plain = torch.where(placeholders, PAD, input_ids)
        embeds = language.embed_tokens(plain)
        per_layer = language.get_per_layer_inputs(plain, embeds)
        if soft:
            embeds = embeds.masked_scatter(placeholders[..., None], torch.cat(soft).to(embeds.dtype))
        positions = (attention.cumsum(-1) - 1).clamp(min=0)
        out = language(
            inputs_embeds=embeds, per_layer_inputs=per_layer, attention_mask=attention, position_ids=positions,
            use_cache=False, logits_to_keep=keep,
        )  # fmt: skip
        # Where no row is padded, transformers makes no mask and runs the tail over everything.
        return out.last_hidden_state[:, -keep:]


@dataclass(frozen=True)
class Course:
    """What a stage does with its time.

    Attributes:
        minutes: of wall clock.
        mix: kind of example: share of the steps.
        budgets: soft tokens of a picture (0: as small as it is): share of the picture steps.
        peak: learning rate.
        heads: share of the time in which the throw-away heads learn alone, while the model stands still.
        easy: share of the time over which clips grow from one word to seven.
        attach: share of the time after which the answers move the towers too.
        translated: share of the clips that are translated too.
        four_bits: whether the decoder computes with its weights as 4 bits hold them.
    """

    minutes: float
    mix: dict[str, float]
    budgets: dict[int, float]
    peak: float
    heads: float = 0.0
    easy: float = 0.0
    attach: float = 0.0
    translated: float = 0.5
    four_bits: bool = False


def batches(
    data: SpeechData, rng: random.Random, kind: str, longest: int, budget: int, translated: float = 0.5
) -> list[list[Example]]:
    """Several batches of one kind, each of examples of about the same length."""
    if kind == "speech":
        pool = [examples.speech(data, rng, longest, translated=translated) for _ in range(24 * 4)]
        pool = [e for e in pool if 1000 < len(e.clip.samples) < 7 * RATE]
        pool.sort(key=lambda e: len(e.clip.samples))
        out = [pool[i : i + 24] for i in range(0, len(pool), 24)]
    elif kind == "picture":
        size = {0: 16, 70: 12, 140: 8, 280: 5}[budget]
        out = [[examples.picture(rng, small=budget == 0) for _ in range(size)]]
    else:
        chats = sorted((examples.chat(rng) for _ in range(24 * 4)), key=lambda e: len(e.text))
        out = [chats[i : i + 24] for i in range(0, len(chats), 24)]
    rng.shuffle(out)
    return out


def share_gradients(parameters: list[nn.Parameter]) -> None:
    """The mean of all processes' gradients, in all of them."""
    flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)


def train(together: Together, data: SpeechData, checkpoint: Path, course: Course, seed: int) -> None:
    """Trains for the course's minutes, goes on from ``checkpoint`` if it exists.

    Several processes (torch.distributed) see different examples and share their gradients.
    """
    rank = dist.get_rank() if dist.is_initialized() else 0
    rng, kinds = random.Random(f"{seed}/{rank}"), random.Random(seed)
    parameters = list(together.parameters())
    inside = list(together.model.parameters())
    towers = {id(p) for module in (together.audio, together.vision) for p in module.parameters()}
    groups = [
        {"params": [p for p in parameters if id(p) not in towers], "scale": 1.0},
        {"params": [p for p in parameters if id(p) in towers], "scale": 0.9},
    ]
    optimizer = torch.optim.AdamW(groups, lr=course.peak, betas=(0.9, 0.98), weight_decay=0.02)
    step, moved, spent = 0, 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        together.load_state_dict(saved["together"])
        optimizer.load_state_dict(saved["optimizer"])
        for group, fresh in zip(optimizer.param_groups, groups, strict=True):
            group["scale"] = fresh["scale"]
        step, spent = saved["step"], saved["spent"]
        kinds.seed(f"{seed}/{step}")
    started, saved_at = time.monotonic() - spent, time.monotonic()
    logs: dict[str, list[tuple[float, float, float]]] = {}
    ready: dict[tuple[str, int], list[list[Example]]] = {}
    while True:
        clock = torch.tensor([time.monotonic() - started])
        if dist.is_initialized():
            dist.broadcast(clock, 0)
        elapsed = clock.item()
        progress = elapsed / (course.minutes * 60)
        if progress >= 1:
            break
        alone = progress < course.heads
        for parameter in inside:
            parameter.requires_grad_(not alone)
        learning = [p for p in parameters if p.requires_grad]
        if alone:
            rate = 2e-3
        else:
            since = (progress - course.heads) / (1 - course.heads)
            moved += 1
            # Adam knows nothing yet of what begins to move.
            rate = course.peak * min(1.0, moved / 100) * learning_rate(int(since * 10_000), 10_000, 1.0, 1)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        # The same kind and budget in every process: none waits long for another.
        kind = kinds.choices(list(course.mix), list(course.mix.values()))[0]
        budget = kinds.choices(list(course.budgets), list(course.budgets.values()))[0] if kind == "picture" else 0
        waiting = ready.setdefault((kind, budget), [])
        if not waiting:
            longest = 7 if progress >= course.easy else 1 + int(6 * progress / course.easy)
            waiting += batches(data, rng, kind, longest, budget, course.translated)
        batch = waiting.pop()
        optimizer.zero_grad()
        with four_bits.held(together.model) if course.four_bits else nullcontext():
            with torch.autocast("cpu", torch.bfloat16):
                loss, tower_loss, right = together(batch, budget, data, True, progress >= course.attach)
            total = loss + 0.5 * tower_loss
            if total.requires_grad:  # no head learns from text alone
                total.backward()
        if dist.is_initialized():
            share_gradients(learning)
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        step += 1
        logs.setdefault(kind, []).append((loss.item(), tower_loss.detach().item(), right.item()))
        if rank == 0 and step % 50 == 0:
            means = {k: np.mean(v, axis=0).round(3).tolist() for k, v in sorted(logs.items())}
            print(f"decoder {step} {elapsed / 60:.1f} min lr {rate:.1e}", means, flush=True)
            logs = {}
        if rank == 0 and time.monotonic() - saved_at > 120:
            _save(together, optimizer, step, elapsed, checkpoint)
            saved_at = time.monotonic()
    if rank == 0:
        _save(together, optimizer, step, course.minutes * 60, checkpoint)


def _save(together: Together, optimizer: torch.optim.Optimizer, step: int, spent: float, checkpoint: Path) -> None:
    partial = checkpoint.with_suffix(".partial")
    torch.save(
        {"together": together.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent}, partial
    )
    partial.rename(checkpoint)
