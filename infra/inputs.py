"""Settings that may be the output of another resource, when a program passes them to a component.

Planning reads the settings without Pulumi, so nothing here imports it at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard, TypeVar, Union

from pydantic import WrapValidator
from pydantic.fields import FieldInfo

T = TypeVar("T")
_INPUT = "accepts an output"


def is_output(value: object) -> TypeGuard[Any]:
    """Whether a value is a `pulumi.Output`, which may be unknown during a preview."""
    return type(value).__module__.startswith("pulumi.") and hasattr(type(value), "apply")


def is_input(field: FieldInfo) -> bool:
    """Whether a setting accepts an output."""
    return _INPUT in field.metadata


def is_plain(values: Sequence[Any] | object) -> TypeGuard[Any]:
    """Whether a value, and each item if it is a list, is known now."""
    return not is_output(values) and not (isinstance(values, list | tuple) and any(map(is_output, values)))


def _let_outputs_through(value: Any, validate: Callable[[Any], Any]) -> Any:
    # An output is validated when its value is known: see `infra.component.validated`.
    return value if is_output(value) else validate(value)


if TYPE_CHECKING:
    from pulumi import Output

    Input = Union[T, Output[T]]  # noqa: UP007 - of a type variable, at run time of no concern
else:

    class Input:
        """A type of which a value, or an output of it, is accepted."""

        def __class_getitem__(cls, item: Any) -> Any:
            """The type for pydantic."""
            return Annotated[item, WrapValidator(_let_outputs_through), _INPUT]
