"""Whose endpoint it is: what its names and tags are derived from."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_DIGITS = 8


@dataclass(frozen=True)
class Identity:
    """An endpoint's owner.

    The stack-file program declares one endpoint per stack, named after the stack. Another program can declare any number,
    and another project can have a stack of the same name in the same account; so there, project, stack and name count.

    Attributes:
        stack: the Pulumi stack's name.
        project: the Pulumi project's name; empty in the stack-file program.
        endpoint: the component's name; empty in the stack-file program.
    """

    stack: str
    project: str = ""
    endpoint: str = ""

    @property
    def tag(self) -> str:
        """The value of the Stack tag: the stack, or ``project/stack/endpoint``, with characters that a tag can contain."""
        if not self.endpoint:
            return self.stack
        text = re.sub(r"[^\w .:/=+@-]", "-", f"{self.project}/{self.stack}/{self.endpoint}")
        return text if len(text) <= 256 else f"{text[:247]}-{self._digest}"

    def prefix(self, longest: int) -> str:
        """A prefix for names: ``vllm-<stack>``, or ``vllm-``, the beginning of the endpoint's name, and a hash of all three.

        It consists of lower-case letters, digits and hyphens, and is the same at every deploy.
        """
        if not self.endpoint:
            return bounded(f"vllm-{self.stack}", longest, digits_of(self.stack))
        room = longest - len("vllm--") - _DIGITS
        readable = re.sub(r"[^a-z0-9]+", "-", self.endpoint.lower()).strip("-")[:room].strip("-")
        return "-".join(filter(None, ("vllm", readable, self._digest)))

    def record(self, name: str, longest: int = 20) -> str:
        """The logical name of a record in Pulumi's state, unique in the stack."""
        return f"{self.prefix(longest)}-{name}" if self.endpoint else name

    @property
    def _digest(self) -> str:
        parts = (self.project, self.stack, self.endpoint)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_DIGITS]


def digits_of(stack: str) -> int:
    """Hexadecimal digits of the hash in a stack's names.

    Five for names that early versions accepted, so that deployed stacks keep their resource names. Branch names often
    share a prefix and are numerous, so all other names get eight. Hashes of different lengths can never be equal.
    """
    return 5 if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,39}", stack) else 8


def bounded(text: str, longest: int, digits: int = 5) -> str:
    """Convert ``text`` to lower-case letters, digits and hyphens, at most ``longest`` characters.

    If this changes the text, a hash of the original is appended, so that two names never become equal.
    """
    clean = re.sub(r"-+", "-", re.sub(r"[^a-z0-9]", "-", text.lower())).strip("-")
    if clean == text and len(clean) <= longest:
        return clean
    digest = hashlib.sha256(text.encode()).hexdigest()[:digits]
    return f"{clean[: longest - digits - 1].rstrip('-')}-{digest}"
