"""What has been said in a chat, and what goes to the model next. Knows no screen, no disk and no model."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..line.attachments import Attachment
from ..messages import Message, assistant_message, user_message


@dataclass
class Exchange:
    """What a person said, and what the model made of it.

    Attributes:
        number: tells it from the others of its conversation, for good.
        text, attachments: the person's turn.
        replies: the model's turn as chat templates take it: assistant messages, and tool messages with results between
            them. Empty as long as there is no answer.
    """

    number: int
    text: str
    attachments: list[Attachment] = field(default_factory=list)
    replies: list[Message] = field(default_factory=list)

    @property
    def answer(self) -> str:
        """The words of the answer."""
        return "\n\n".join(m["content"] for m in self.replies if m["role"] == "assistant" and m["content"])

    @property
    def title(self) -> str:
        """What the person said, or the names of what they sent without a word."""
        return self.text.strip() or ", ".join(attachment.name for attachment in self.attachments)

    @property
    def thought(self) -> str:
        """What the model thought, if it did."""
        return "\n\n".join(m["reasoning_content"] for m in self.replies if m.get("reasoning_content"))


@dataclass
class Conversation:
    """The exchanges so far, oldest first.

    Attributes:
        system: instructions for the model; apply to the whole conversation from the moment they are set.
        thinking: whether the model may think before it answers.
    """

    system: str | None = None
    thinking: bool = False
    exchanges: list[Exchange] = field(default_factory=list)
    _count: int = field(default=0, compare=False)

    @property
    def next_number(self) -> int:
        """Of the exchange that comes next."""
        return self._count

    def begin(self, text: str, attachments: list[Attachment]) -> Exchange:
        """Add what a person says."""
        exchange = Exchange(self._count, text, list(attachments))
        self.add(exchange)
        return exchange

    def add(self, exchange: Exchange) -> None:
        """Add an exchange that has its number already."""
        self.exchanges.append(exchange)
        self._count = max(self._count, exchange.number + 1)

    def drop(self, exchanges: list[Exchange]) -> None:
        """Forget these."""
        numbers = {exchange.number for exchange in exchanges}
        self.exchanges = [exchange for exchange in self.exchanges if exchange.number not in numbers]

    def messages(self) -> list[Message]:
        """Everything the model must read to answer the last exchange."""
        messages: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        for exchange in self.exchanges:
            turn = user_message(exchange.text, exchange.attachments)
            before = messages[-1]["role"] if messages else None
            if before == "user":
                # The one before was never answered, because the program was killed: templates want turns to alternate.
                messages[-1] = {"role": "user", "content": [*messages[-1]["content"], *turn["content"]]}
            else:
                if before == "tool":  # stopped while the model was to read a tool's result
                    messages.append(assistant_message(""))
                messages.append(turn)
            messages += exchange.replies
        return messages
