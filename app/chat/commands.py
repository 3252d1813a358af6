"""The chat's slash commands: one table of what can be typed, and what each of them does."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemma4_mlx.errors import InputError

from ..line.attachments import Kind, open_attachment
from ..line.named_files import unquoted
from ..printable import printable
from ..terminal import note, shortened
from .deleting import check_deletable, may_delete

if TYPE_CHECKING:
    from .chat import Chat

KEYS = """\
Drop a file on the terminal, or type its path, to attach it. Tab completes commands and paths.
Shift-Enter, Alt-Enter, Ctrl-J, or Esc and then Enter begin a new line; so does Enter within \"\"\".
A space in front of a command makes words of it. Ctrl-G opens your editor, Ctrl-O what is folded in the line.
Ctrl-T attaches the files that a pasted text names. Ctrl-V pastes a picture, Ctrl-R listens.
Ctrl-C stops an answer and keeps what was written of it."""

_CODE_BLOCK = re.compile(r"^(`{3,}|~{3,})[^\n]*\n(.*?)^\1[`~]*[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: with its slash.
        argument: what comes after it: FILE, CHAT, LANGUAGE, choices as `on|off`, anything else, or nothing.
        help: what it does.
        run: does it, given the argument.
    """

    name: str
    argument: str
    help: str
    run: Callable[[Chat, str], None]


def run(chat: Chat, line: str) -> bool:
    """Do what a line asks for, if it begins with a command's name; whether it did.

    Raises:
        Gemma4Error, ValueError, OSError: it cannot be done.
    """
    name, _, rest = line.partition(" ")
    argument = rest.strip()
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is not None:
        if argument and not command.argument:
            chat.prefilled = line  # it may have been meant as words
            raise InputError(f"{name} takes nothing after it")
        command.run(chat, argument)
    return command is not None


def _help(chat: Chat, argument: str) -> None:
    usages = [f"{command.name} {command.argument}".rstrip() for command in COMMANDS]
    width = max(map(len, usages))
    lines = [f"{usage:<{width}}  {command.help}" for usage, command in zip(usages, COMMANDS, strict=True)]
    note(*lines, *KEYS.split("\n"))


def _image(chat: Chat, argument: str) -> None:
    _attach_file(chat, argument, "image")


def _audio(chat: Chat, argument: str) -> None:
    _attach_file(chat, argument, "audio")


def _attach_file(chat: Chat, argument: str, kind: Kind) -> None:
    if not argument:
        raise InputError(f"/{kind} FILE: which file?")
    chat.attach([open_attachment(unquoted(argument), kind, image_tokens=chat.image_tokens)])


def _paste(chat: Chat, argument: str) -> None:
    from ..line import clipboard

    chat.attach(clipboard.attachments(chat.image_tokens))


def _listen(chat: Chat, argument: str) -> None:
    from .chat_listening import listen

    listen(chat)


def _translate(chat: Chat, argument: str) -> None:
    if not argument:
        raise InputError("/translate LANGUAGE: into which language?")
    from .chat_listening import translate

    translate(chat, argument)


def _undo(chat: Chat, argument: str) -> None:
    exchange = chat.take_back_last()
    note(f"taken back: {shortened(exchange.title, 60)}")


def _regenerate(chat: Chat, argument: str) -> None:
    chat.answer_again()


def _edit(chat: Chat, argument: str) -> None:
    exchange = chat.take_back_last()
    chat.waiting = [*exchange.attachments, *chat.waiting]
    chat.prefilled = exchange.text
    if not chat.edits_lines:
        note(f"taken back: {shortened(exchange.title, 60)}")


def _forget(chat: Chat, argument: str) -> None:
    count = _number(argument or "1", "/forget N")
    oldest = chat.conversation.exchanges[:count]
    if not oldest:
        raise InputError("there is nothing to forget")
    chat.forget(oldest, typed=True)
    note(f"forgotten{_where_still(chat)}: the oldest {len(oldest)} of your messages and their answers")


def _where_still(chat: Chat) -> str:
    """Where something that has just been forgotten still is."""
    return " here, and on disk as soon as that can be" if chat.session.holds_forgotten else ""


def _clear(chat: Chat, argument: str) -> None:
    left = chat.session
    begun = left.begun
    was_said = bool(chat.conversation.exchanges)
    chat.clear()
    if left.private and was_said:
        note("a new chat; the one before was private and is gone")
    elif not begun:
        note("a new chat")
    elif left.on_disk:
        note(f"a new chat; {left.name} is kept, /resume goes back to it")
    else:
        note(f"a new chat; {left.name} is not saved yet: that is tried again until it is, /resume goes back to it")


def _delete(chat: Chat, argument: str) -> None:
    this = not argument or (argument == chat.session.name and chat.session.begun)
    if this and chat.session.private:
        raise InputError(
            "nothing of this chat is on disk: it is private; /clear begins another, /delete CHAT removes one"
        )
    if this and not chat.session.begun:
        raise InputError(f"this chat is not on disk yet; /delete CHAT removes one: {chat.store.saved()}")
    name = chat.session.name if this else argument
    if not this:
        check_deletable(chat.store, name)
    if not may_delete(name):
        note(f"{name} stays")
        return
    if this:
        try:
            chat.session.delete()
        finally:
            if not chat.session.begun:
                chat.clear()
        note(f"deleted: {name}; a new chat")
    else:
        chat.store.delete(name)
        note(f"deleted: {name}")


def _system(chat: Chat, argument: str) -> None:
    chat.conversation.system = argument or None
    chat.settings_changed()
    note("instructions set" if argument else "no instructions")


def _think(chat: Chat, argument: str) -> None:
    match argument:
        case "on" | "off":
            chat.conversation.thinking = argument == "on"
            chat.settings_changed()
            note(f"thinking {argument}")
        case "show" | "hide":
            chat.show_thoughts = argument == "show"
            note("thoughts are shown" if chat.show_thoughts else "thoughts are hidden")
        case _:
            raise InputError("/think on, off, show or hide")


def _model(chat: Chat, argument: str) -> None:
    if argument:
        chat.change_model(argument)
    note(f"model: {chat.model.name}")


def _detail(chat: Chat, argument: str) -> None:
    from gemma4_mlx.config import IMAGE_TOKEN_BUDGETS
    from gemma4_mlx.processing.images import check_image_tokens

    if argument:
        try:
            image_tokens = int(argument)
            check_image_tokens(image_tokens)
        except ValueError:
            raise InputError(
                f"/detail {'|'.join(map(str, IMAGE_TOKEN_BUDGETS))}: one of these, not {argument}"
            ) from None
        chat.image_tokens = image_tokens
    note(f"pictures take up to {chat.image_tokens} tokens")


def _context(chat: Chat, argument: str) -> None:
    from .chat_figures import context_used

    note(*context_used(chat))


def _stats(chat: Chat, argument: str) -> None:
    from .chat_figures import speed_and_memory

    note(*speed_and_memory(chat))


def _copy(chat: Chat, argument: str) -> None:
    from ..line import clipboard

    answer = next((e.answer for e in reversed(chat.conversation.exchanges) if e.answer), None)
    if answer is None:
        raise InputError("there is no answer to copy yet")
    if not argument:
        clipboard.copy(answer)
        note("copied: the last answer")
        return
    blocks = [block[2] for block in _CODE_BLOCK.finditer(answer)]
    number = _number(argument, "/copy N")
    if number > len(blocks):
        raise InputError(f"the last answer has {len(blocks) or 'no'} code block{'s' if len(blocks) != 1 else ''}")
    clipboard.copy(blocks[number - 1])
    note(f"copied: code block {number}")


def _save(chat: Chat, argument: str) -> None:
    if chat.session.private:
        _keep(chat, argument)
        return
    if argument:
        chat.session.rename(argument)
    if not chat.session.begun:
        note(f"this chat will be kept as {chat.session.name}, from your first message on")
        return
    if not chat.session.on_disk:
        raise InputError("this chat cannot be saved at the moment; it goes on, and is saved when it can be")
    note(f"kept as {chat.session.name}: gemma4-mlx chat --resume {_quoted(chat.session.name)}")


def _keep(chat: Chat, name: str) -> None:
    if not name:
        raise InputError("this chat is private: /save NAME keeps it, from its first message on")
    session = chat.store.keep(name)
    session.whole(chat.conversation, chat.model.name)
    chat.session = session
    note(f"kept from here on as {session.name}, with all that was said before: it is private no more")


def _load(chat: Chat, argument: str) -> None:
    if not argument:
        raise InputError(f"/load NAME or FILE; {chat.store.saved()}")
    if argument in chat.store.names():
        chat.go_on_with(argument)
        return
    path = Path(unquoted(argument)).expanduser()
    if not path.is_file():
        raise InputError(chat.store.no_such(argument))
    from .export import read_export

    if path.suffix.lower() == ".json":
        chat.begin_from(read_export(path, note))
    else:
        chat.begin_from(chat.store.read_file(path).conversation)
    if chat.conversation.system:  # somebody else's, perhaps
        note(f"instructions: {printable(chat.conversation.system)}")


def _resume(chat: Chat, argument: str) -> None:
    chat.go_on_with(None)


def _export(chat: Chat, argument: str) -> None:
    from .export import export

    if not argument:
        raise InputError("/export FILE.md or FILE.json")
    if not chat.conversation.exchanges:
        raise InputError("nothing has been said yet")
    path = Path(unquoted(argument)).expanduser()
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}")
    export(path, chat.conversation, chat.model.name)
    note(f"written: {path}" + (", which stays; the chat itself is private" if chat.session.private else ""))


def _quit(chat: Chat, argument: str) -> None:
    chat.over = True


def _number(argument: str, usage: str) -> int:
    if not argument.isdecimal() or int(argument) < 1:
        raise InputError(f"{usage}: a number from 1, not {argument}")
    return int(argument)


def _quoted(name: str) -> str:
    return f"'{name}'" if " " in name else name


COMMANDS = (
    Command("/image", "FILE", "attach a picture to your next message", _image),
    Command("/audio", "FILE", "attach a sound, up to 30 s", _audio),
    Command("/paste", "", "attach the picture in the clipboard", _paste),
    Command("/listen", "", "speak instead of typing", _listen),
    Command("/translate", "LANGUAGE", "translate the sound attached, or what you said last, or say now", _translate),
    Command("/detail", "70|140|280|560|1120", "how many tokens a picture takes: more to read small print", _detail),
    Command("/undo", "", "take back your last message and its answer", _undo),
    Command("/edit", "", "change your last message and send it again", _edit),
    Command("/regen", "", "answer your last message again", _regenerate),
    Command("/forget", "N", "forget the oldest N messages, on disk too", _forget),
    Command("/clear", "", "leave the conversation and begin another", _clear),
    Command("/delete", "CHAT", "delete this chat, or another one, from the disk", _delete),
    Command("/system", "TEXT", "instructions for the model; without TEXT: none", _system),
    Command("/think", "on|off|show|hide", "let the model think before it answers; show what it thinks", _think),
    Command("/model", "NAME", "go on with another model", _model),
    Command("/context", "", "tokens used, by message", _context),
    Command("/stats", "", "speed and memory", _stats),
    Command("/copy", "N", "copy the last answer, or its Nth code block", _copy),
    Command("/save", "NAME", "give this chat a name", _save),
    Command("/load", "CHAT|FILE", "go on with a chat by its name, or from a file", _load),
    Command("/resume", "", "go on with the chat before this one", _resume),
    Command("/export", "FILE", "write the chat to a file: .md or .json", _export),
    Command("/help", "", "this list", _help),
    Command("/quit", "", "leave; so does Ctrl-D", _quit),
)
