"""What has been said in a chat, and what goes to the model next. Knows no screen and no model."""

from __future__ import annotations

from dataclasses import dataclass, field

from .attachments import Attachment

Message = dict[str, object]


def user_message(text: str, attachments: list[Attachment]) -> Message:
    """One user turn in the Hugging Face form: pictures, then the words, then sound.

    Sound comes after the words because the models answer a question about it better that way (their model cards).
    """
    pictures = [attachment.part() for attachment in attachments if attachment.kind == "image"]
    sounds = [attachment.part() for attachment in attachments if attachment.kind == "audio"]
    words: list[Message] = [{"type": "text", "text": text}] if text else []
    return {"role": "user", "content": [*pictures, *words, *sounds]}


@dataclass
class Conversation:
    """The turns so far, and the files that wait for the next one.

    Attributes:
        system: instructions for the model; applies to the whole conversation from the moment it is set.
        thinking: whether the model may think before it answers.
        turns: user and model messages in turn, always ending with the model's.
        waiting: attachments for the next user turn.
    """

    system: str | None = None
    thinking: bool = False
    turns: list[Message] = field(default_factory=list)
    waiting: list[Attachment] = field(default_factory=list)

    def messages_with(self, text: str) -> list[Message]:
        """Everything the model must read to answer `text` and the waiting attachments; changes nothing."""
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.turns, user_message(text, self.waiting)]

    def answered(self, text: str, answer: str) -> None:
        """Keep a finished exchange: the user's turn with the waiting attachments, and the model's answer."""
        self.turns += [user_message(text, self.waiting), {"role": "assistant", "content": answer}]
        self.waiting = []

    def clear(self) -> None:
        """Forget every turn and every waiting attachment; instructions and thinking stay as they are."""
        self.turns = []
        self.waiting = []
