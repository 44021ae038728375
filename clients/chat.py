"""A chat in the terminal: `make chat`. Text from a pipe is one question; answers go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from typing import Any

from infra.interrupts import exit_quietly

if __name__ == "__main__":  # Ctrl-C during the imports below
    exit_quietly()

import httpx2
import openai
from openai import OpenAI

from clients.answer import Answer, Waiting, printable
from clients.openai_example import (
    UsageError,
    api_key,
    base_url_of,
    connect,
    default_endpoint,
    explain,
    first_model,
    is_local,
    split_user,
)
from clients.standard_streams import NotTextError, open_streams, question_from
from infra.command_line import count, run
from infra.terminal import paint
from infra.web_address import remember_secret
from local.make_names import by_make
from smoke_tests.api_key import choose, keys_document
from smoke_tests.errors import TargetError
from smoke_tests.options import (
    add_api_key_file,
    add_endpoint,
    add_endpoint_name,
    add_key_name,
    add_model,
    add_stack,
    check_stack_options,
    new_parser,
)
from smoke_tests.stack import read_stack
from smoke_tests.target import endpoint_address, given_key, one_authorization

HELP = """\
/reset          forget the conversation
/system TEXT    set the system prompt and start over; without TEXT, remove it
/model [NAME]   list the models, or change the model
/quit           exit (or Ctrl-D)
Ctrl-C stops an answer."""
MAX_TOKENS = 2048
STAND_IN_MAX_TOKENS = 64  # a random model seldom stops by itself
BROKEN = (openai.OpenAIError, httpx2.HTTPError, ValueError)
# Other text that begins with a slash, such as a path, is a question.
COMMAND = re.compile(r"/[a-z]*")


def main(arguments: list[str] | None = None) -> int:
    """Chat until Ctrl-D; return 0, 1 after one line if the endpoint could not be asked, or 2 for a wrong option."""
    options = _parser().parse_args(arguments)
    open_streams()
    base_url = ""
    try:
        base_url, key, user = _endpoint(options)
        with connect(base_url, key, max_retries=0, user=user) as client:
            chat = Chat(client, options.model or first_model(client), options.max_tokens)
            return _converse(chat) if sys.stdin.isatty() else _answer_pipe(chat)
    except UsageError as error:
        _report(str(error))
        return 2
    except (TargetError, NotTextError, *BROKEN) as error:
        _report(_line(error, base_url))
        return 1


class Chat:
    """One conversation with one model."""

    def __init__(self, client: OpenAI, model: str, max_tokens: int | None = None) -> None:
        self.client, self.model, self.system = client, model, ""
        self.messages: list[dict[str, str]] = []
        self.base_url = str(client.base_url).rstrip("/")
        self.stand_in = bool(self.info().get("stand_in"))
        self.max_tokens = max_tokens or (STAND_IN_MAX_TOKENS if self.stand_in else MAX_TOKENS)

    def info(self) -> dict[str, Any]:
        """What the gateway says about itself; empty for other servers."""
        try:
            url = f"{self.base_url.removesuffix('/v1')}/info"
            with httpx2.Client(timeout=2.0, trust_env=not is_local(url)) as http:
                found = http.get(url).json()
        except (httpx2.HTTPError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def command(self, line: str) -> bool:
        """Run a command; returns whether the line is one."""
        word, *others = line.split(maxsplit=1)
        rest = others[0] if others else ""
        if word == "/reset":
            self.messages = []
            _say("The conversation is forgotten.")
        elif word == "/system":
            self.system, self.messages = rest, []
            _say("The system prompt is set; the conversation starts over." if rest else "No system prompt.")
        elif word == "/model":
            self._choose_model(rest)
        elif word == "/help":
            _say(HELP)
        else:
            return False
        return True

    def _choose_model(self, name: str) -> None:
        try:
            names = [model.id for model in self.client.models.list().data]
        except BROKEN as error:
            _report(_line(error, self.base_url))
            return
        if not name:
            _say("\n".join(f"{'*' if each == self.model else ' '} {each}" for each in names))
        elif name in names:
            self.model = name
            _say(f"Asking {name} from now on.")
        else:
            _report(f"{name} is not served here; set one of: {', '.join(names)}")

    def ask(self, question: str) -> bool:
        """Print the answer as it arrives; returns whether it arrived. A failed question is not added to the conversation."""
        asked = [*self.messages, {"role": "user", "content": question.encode("utf-8", "replace").decode()}]
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages: Any = system + asked
        answer = Answer()
        waiting = Waiting(self.info)
        try:
            with self.client.chat.completions.create(
                model=self.model, messages=messages, max_tokens=self.max_tokens, stream=True,
                stream_options={"include_usage": True},
            ) as stream:  # fmt: skip
                for chunk in stream:
                    for text, thought in answer.read(chunk):
                        waiting.end()
                        answer.show(text, thought)
        except KeyboardInterrupt:
            answer.end = "stopped"
        except BROKEN as error:
            waiting.end()
            answer.close()
            _report(_line(error, self.base_url))
            return False
        finally:
            waiting.end()
        answer.close()
        _say(answer.figures(self.max_tokens))
        if answer.text:
            self.messages = [*asked, {"role": "assistant", "content": answer.text}]
        return True


def _converse(chat: Chat) -> int:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() then edits lines and remembers them
    _say(f"{chat.model} at {chat.base_url}. /help lists the commands, Ctrl-D ends.")
    if chat.stand_in:
        _say("This is the stand-in: a tiny random model, so the text is noise.")
    while True:
        try:
            _take_turns(chat)
            return 0
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:  # at the prompt, in a command, or just after an answer
            print()
            _say("Ctrl-D or /quit ends.")


def _take_turns(chat: Chat) -> None:
    """Questions and commands until /quit. Python raises KeyboardInterrupt also where a loop starts over."""
    while True:
        line = _read_line().strip()
        word = line.split()[0] if line else ""
        if word == "/quit":
            return
        if COMMAND.fullmatch(word):
            if not chat.command(line):
                _report(f"{word} is not a command; /help lists them")
        elif line:
            chat.ask(line)


def _read_line() -> str:
    if not sys.stdout.isatty():  # stdout is for the answers
        print("> ", end="", file=sys.stderr, flush=True)
    return input("> " if sys.stdout.isatty() else "")


def _answer_pipe(chat: Chat) -> int:
    """Commands at the beginning, then everything else as one question."""
    lines = question_from(sys.stdin).split("\n")
    asked = False
    while lines and (not lines[0].strip() or COMMAND.fullmatch(lines[0].split()[0])):
        line = lines[0].strip()
        if line == "/quit":
            return 0
        if line and not chat.command(line):
            break
        asked = asked or bool(line)
        del lines[0]
    if lines:
        return 0 if chat.ask("\n".join(lines).rstrip()) else 1
    if not asked:
        _report(
            "there is no question on stdin. Write one, as in: echo 'Hello!' | make chat; or run make chat in a terminal"
        )
    return 0 if asked else 1


def _endpoint(options: argparse.Namespace) -> tuple[str, str, str]:
    """The base URL, the key, and "user:password" of Basic authentication."""
    check_stack_options(options)
    given = given_key(options.api_key_file)
    if options.stack is None:
        if options.name:
            raise TargetError("--name chooses a key of a stack; give --stack, or leave it out")
        base_url, user = _address(options.endpoint)
        if given and user:
            raise TargetError(one_authorization(options.api_key_file))
        return base_url, given or api_key(base_url, user), user
    key = given or choose(keys_document(options.stack, options.endpoint_name), options.name)
    return base_url_of(read_stack(options.stack, options.endpoint_name, read_key=False).endpoint), key, ""


def _address(endpoint: str | None) -> tuple[str, str]:
    """The base URL of an endpoint, and "user:password"; None: the default endpoint. Raises UsageError."""
    if endpoint is None:
        base_url, user = split_user(base_url_of(default_endpoint()))
        if user:
            remember_secret(user)
        return base_url, user
    try:
        address = endpoint_address(endpoint)
    except TargetError as error:
        raise UsageError(str(error)) from None
    return base_url_of(address.url), address.user


def _line(error: Exception, base_url: str) -> str:
    if isinstance(error, openai.OpenAIError):
        return explain(error, base_url, another="name another: make chat STACK=dev, or ENDPOINT=URL")
    return f"{base_url} broke off: {error}" if isinstance(error, httpx2.HTTPError) else str(error)


def _say(text: str) -> None:
    print(paint(printable(text), "dim", sys.stderr), file=sys.stderr, flush=True)


def _report(text: str) -> None:
    print(f"{paint('error:', 'red', sys.stderr)} {by_make(printable(text))}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "clients.chat",
        "Chat with the endpoint that make local started, or with another. Text from a pipe is one question.",
    )
    where = parser.add_mutually_exclusive_group()
    add_endpoint(where)
    add_stack(where)
    add_endpoint_name(parser)
    add_api_key_file(parser, "$VLLM_API_KEY, else the key of the stack or of make local")
    add_key_name(parser)
    add_model(parser)
    parser.add_argument(
        "--max-tokens", type=count, metavar="N", help=f"longest answer in tokens (default {MAX_TOKENS})"
    )
    return parser


if __name__ == "__main__":
    run(main)
