"""`gemma4-mlx chat`: the loop of typing and answering."""

from __future__ import annotations

import difflib
import re
import shlex
import signal
import sys
from contextlib import nullcontext

from gemma4_mlx.errors import Gemma4Error

from ..exit_codes import FAILED, INTERRUPTED, leave_at_once, one_line
from ..line.line_input import InputLine, Typed
from ..models.model_choice import choose, fetch_chosen
from ..terminal import note, somebody_types
from ..typed_ahead import can_be_asked, keys_wait
from . import commands
from .chat import Chat, ChatOptions
from .conversation import Conversation
from .model_thread import ModelThread, ThreadedModel
from .resuming import choose_chat
from .session import Session
from .session_events import Replay
from .sessions import SessionStore

# What people type into a prompt when they look for the way out, or for help.
_MEANT = {"exit": "/quit", "quit": "/quit", "/exit": "/quit", "help": "/help", "?": "/help"}
_NEAR = 0.7  # of difflib's likeness: two letters changed places, one too many


def chat(model_name: str | None, options: ChatOptions) -> None:
    """Read lines and answer them until stdin ends, /quit, or Ctrl-C twice at an empty prompt.

    Raises:
        Gemma4Error: there is no such model, session or file of tools, or the model cannot be loaded. Errors in a
            message are reported and the conversation goes on.
        KeyboardInterrupt: Ctrl-C twice at an empty prompt.
    """
    tools = None
    if options.tools is not None:
        from ..tools.tools_file import load_tools

        tools = load_tools(options.tools)
    store = SessionStore(note, private=options.private)
    session, replay = _session(store, options.resume)
    chosen = choose(model_name or (replay.model if replay else None), offer_demo=True)
    folder = fetch_chosen(chosen)
    conversation = replay.conversation if replay else Conversation(options.system, options.thinking)
    model = ThreadedModel(ModelThread(), chosen.name, folder)
    chat = Chat(model, conversation, session, store, options, tools, chosen.background)
    line = InputLine(
        commands.COMMANDS,
        chat.footer,
        image_tokens=lambda: chat.image_tokens,
        place=lambda: chat.session.place(chat.conversation),
        chats=store.names,
        on_shown=lambda: chat.model.begin(),  # whichever it is by then: a method of this one would keep it in memory
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leaves everything in order
    with keys_wait() if chat.edits_lines else nullcontext():
        try:
            _greet(chat, resumed=replay is not None)
            while not chat.over:
                _read_and_handle(chat, line)
        except EOFError:
            pass
        finally:
            way_back = _way_back(chat)
            is_at_rest = chat.close()
            if way_back:
                note(way_back)
            if not is_at_rest:
                leave_at_once(_exit_code(sys.exc_info()[1]))


def _exit_code(ended_by: BaseException | None) -> int:
    match ended_by:
        case None:
            return 0
        case KeyboardInterrupt():
            return INTERRUPTED
        case SystemExit(code=int(code)):
            return code
        case _:
            note(f"error: {one_line(ended_by)}")
            return FAILED


def _session(store: SessionStore, resume: str | None) -> tuple[Session, Replay | None]:
    """The session to begin with; a person who does not say which one chooses."""
    if resume is None:
        return store.new(), None
    if resume == "" and can_be_asked():
        try:
            return store.open(choose_chat(store))
        except EOFError:
            raise SystemExit(0) from None
    return store.open(resume or None)


def _way_back(chat: Chat) -> str:
    """How a person goes on with this chat; nothing where there is nobody, or nothing to go on with."""
    if not (somebody_types() and chat.conversation.exchanges and chat.session.begun and chat.session.on_disk):
        return ""
    return f"gemma4-mlx chat --resume {shlex.quote(chat.session.name)} goes on with this chat"


def _greet(chat: Chat, resumed: bool) -> None:
    """What stands above the first prompt. Without a terminal the model is loaded first: nobody waits for a key."""
    if not chat.edits_lines:
        chat.model.wait()
    if resumed:
        chat.tell_where_it_stands()
    if chat.session.private:
        note("private: nothing of this chat is written to disk; /save NAME keeps it after all")
    note("/help lists the commands, Ctrl-D leaves.")


def _read_and_handle(chat: Chat, line: InputLine) -> None:
    """Read one line and do what it asks for; what cannot be done is reported.

    Raises:
        EOFError: stdin has ended.
        KeyboardInterrupt: Ctrl-C at an empty prompt, for the second time or where nobody types.
        Exception: the model cannot be loaded.
    """
    chat.store.try_again()
    if chat.fetching is not None and chat.fetching.finished:
        note(chat.fetching.state())
        chat.fetching = None
    try:
        if chat.edits_lines:
            waiting, chat.waiting = chat.waiting, []
            prefilled, chat.prefilled = chat.prefilled, ""
            typed = line.read(prefilled, waiting)
        else:
            typed = line.read()
    except KeyboardInterrupt:
        # It may have been meant for an answer that was over a moment before.
        if chat.may_leave or not somebody_types():
            raise
        chat.may_leave = True
        note("Ctrl-C again leaves; so does Ctrl-D")
        return
    except (Gemma4Error, ValueError, OSError) as error:
        note(f"error: {one_line(error)}")
        return
    chat.may_leave = False
    try:
        handle(chat, typed)
    except KeyboardInterrupt:
        note("stopped")
    except (Gemma4Error, ValueError, OSError) as error:
        if error is chat.model.failure:
            raise
        note(f"error: {one_line(error)}")


def handle(chat: Chat, typed: Typed) -> None:
    """Do what one line asks for.

    Raises:
        Gemma4Error, ValueError, OSError: it cannot be done; the conversation is as it was.
        KeyboardInterrupt: Ctrl-C, other than in an answer.
    """
    chat.waiting += typed.attachments
    if not typed.literal:
        line = typed.text
        if chat.edits_lines and not chat.waiting:
            line = _MEANT.get(line.strip().lower(), line)
        if commands.run(chat, line):
            return
        if near := _nearly_a_command(line):
            note(f"sent as a message: did you mean {near}?")
    if typed.text.strip():
        chat.say(typed.text.strip())
    elif chat.waiting and not chat.edits_lines:
        chat.attach([])  # a line of nothing but files: they wait for words
    elif chat.waiting:
        chat.say("")


def _nearly_a_command(line: str) -> str | None:
    """The command that a line may have been meant for; it is a message all the same."""
    name = re.match(r"/[a-z]+(?!\S)", line)
    near = difflib.get_close_matches(name[0], [known.name for known in commands.COMMANDS], 1, _NEAR) if name else []
    return near[0] if near else None
