"""Faults of tool calls and structured output, whole and streamed."""

import json
from typing import Any

from tests.smoke_tests.fault import Body, Fault, calls, choices, deltas, drop, every, messages, mutant, put, with_calls


def _function(change: Any) -> Any:
    return every(calls, lambda call: change(call["function"]))


def _rising(events: list[Body]) -> None:
    for number, call in enumerate(calls(events)):
        call["index"] = number


def _later_calls(events: list[Body]) -> list[Body]:
    return [call for call in calls(events) if "id" not in call]


def _first_calls(events: list[Body]) -> list[Body]:
    return [call for call in calls(events) if "id" in call]


def _ends(reason: str | None) -> Any:
    """Return a change of the finish_reason of answers with a complete tool call."""

    def changed(documents: Any) -> None:
        for choice in with_calls(documents):
            if choice["finish_reason"] == "tool_calls":
                choice["finish_reason"] = reason

    return changed


def _ends_late(events: list[Body]) -> list[Body]:
    """Return the chunks without the last, which has the finish_reason."""
    return events[:-1] if calls(events) else events


def _one_id(documents: Any) -> None:
    for call in calls(documents):
        if "id" in call:
            call["id"] = "call_1"


def _one_chunk(events: list[Body]) -> list[Body]:
    """Return the chunks of a call in one."""
    if not calls(events):
        return events
    first = _first_calls(events)[0]
    arguments = "".join(call["function"]["arguments"] for call in calls(events) if call["index"] == first["index"])
    first["function"]["arguments"] = arguments
    return [event for event in events if not calls([event]) or calls([event])[0] is first]


def _text_besides(documents: Any) -> None:
    holders = deltas(documents)[-1:] if isinstance(documents, list) else messages(documents)
    if calls(documents):
        for holder in holders:
            holder["content"] = "<tool_call>"


def _reversed_arguments(events: list[Body]) -> None:
    texts = [call["function"]["arguments"] for call in _later_calls(events)]
    for call, text in zip(_later_calls(events), texts[::-1], strict=True):
        call["function"]["arguments"] = text


def _merged(document: Body) -> None:
    for message in messages(document):
        if len(message.get("tool_calls") or ()) > 1:
            message["tool_calls"][1]["id"] = message["tool_calls"][0]["id"]


def _never_cut(documents: Any) -> None:
    for choice in with_calls(documents):
        if choice["finish_reason"] == "length":
            choice["finish_reason"] = "tool_calls"


def _any_choice(wrong: Any) -> Any:
    def changed(request: Body) -> None:
        if wrong(request):
            request.pop("tool_choice", None)
            request.pop("tools", None)

    return changed


def _streamed(documents: list[Body], text: str) -> None:
    told = [delta for delta in deltas(documents) if delta.get("content")]
    for delta in told[1:]:
        delta["content"] = ""
    if told:
        told[0]["content"] = text


def _json_mode(change: Any) -> Any:
    """Return a change of requests in JSON mode."""
    return lambda request: (
        change(request) if (request.get("response_format") or {}).get("type") == "json_object" else None
    )


def _wraps(before: str, after: str) -> Any:
    def changed(document: Body) -> None:
        for message in messages(document):
            if (message.get("content") or "").startswith("{"):
                message["content"] = before + message["content"] + after

    return changed


def _broken_schema(request: Body) -> None:
    schema = ((request.get("response_format") or {}).get("json_schema") or {}).get("schema") or {}
    if "$defs" in schema:
        schema["properties"] = {"hotels": {"type": "boolean"}, "parking": {"type": "boolean"}}


WHOLE, STREAM = "chat answer", "chat stream"
# One fault a line: what it changes, how, and the test that catches it.
# fmt: off
TOOLS: dict[str, Fault] = {
    # Streamed tool calls
    "streams_calls_without_index": mutant(STREAM, every(calls, drop("index")), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_calls_with_a_null_index": mutant(STREAM, every(calls, put(index=None)), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_calls_with_a_text_index": mutant(STREAM, every(calls, put(index="0")), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_calls_with_a_rising_index": mutant(STREAM, _rising, "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_calls_from_index_one": mutant(STREAM, every(calls, lambda call: call.update(index=call["index"] + 1)), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_calls_with_a_negative_index": mutant(STREAM, every(calls, lambda call: call.update(index=call["index"] - 1)), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_later_pieces_without_index": mutant(STREAM, every(_later_calls, drop("index")), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_all_calls_as_the_first": mutant(STREAM, every(calls, put(index=0)), "tools", "parallel_tool_calls_are_told_apart"),
    "streams_calls_without_id": mutant(STREAM, every(calls, drop("id")), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_calls_with_an_empty_id": mutant(STREAM, every(_first_calls, put(id="")), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_calls_with_many_ids": mutant(STREAM, lambda events: [call.update(id=f"call_{number}") for number, call in enumerate(calls(events))], "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_calls_with_one_id_for_all": mutant(STREAM, _one_id, "tools", "parallel_tool_calls_are_told_apart"),
    "streams_calls_without_type": mutant(STREAM, every(calls, drop("type")), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_calls_without_a_name": mutant(STREAM, _function(drop("name")), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_the_name_in_every_piece": mutant(STREAM, every(_later_calls, lambda call: call["function"].update(name="find_hotel")), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_arguments_as_objects": mutant(STREAM, _function(lambda function: function.update(arguments={})), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_arguments_out_of_order": mutant(STREAM, _reversed_arguments, "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_arguments_twice": mutant(STREAM, _function(lambda function: function.update(arguments=2 * function["arguments"])), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_calls_in_one_chunk": mutant(STREAM, _one_chunk, "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_roles_in_every_piece": mutant(STREAM, lambda events: [delta.update(role="assistant") for delta in deltas(events)] if calls(events) else None, "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_calls_as_text_too": mutant(STREAM, _text_besides, "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_stop_for_tool_calls": mutant(STREAM, _ends("stop"), "tools", "a_tool_call_ends_with_its_finish_reason[required]"),
    "streams_null_for_tool_calls": mutant(STREAM, _ends(None), "tools", "a_tool_call_ends_with_its_finish_reason[required]"),
    "streams_length_for_tool_calls": mutant(STREAM, _ends("length"), "tools", "a_tool_call_ends_with_its_finish_reason[required]"),
    "streams_function_call_for_tool_calls": mutant(STREAM, _ends("function_call"), "tools", "a_tool_call_ends_with_its_finish_reason[required]"),
    "streams_calls_without_an_end": mutant(STREAM, _ends_late, "tools", "a_truncated_tool_call_ends_with_length[streamed]"),
    "streams_truncated_calls_as_complete": mutant(STREAM, _never_cut, "tools", "a_truncated_tool_call_ends_with_length[streamed]"),
    "streams_calls_whatever_the_choice": mutant("chat request", lambda request: request.get("stream") and request.get("tool_choice") == "none" and request.pop("tool_choice"), "tools", "tool_choice_none_calls_no_tool[streamed]"),
    "streams_calls_as_an_object": mutant(STREAM, lambda events: [delta.update(tool_calls=delta["tool_calls"][0]) for delta in deltas(events) if delta.get("tool_calls")] and None, "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "ends_tool_calls_twice": mutant(STREAM, lambda events: [*events, events[-1]] if calls(events) else events, "tools", "a_tool_call_ends_with_its_finish_reason[required]"),
    "streams_calls_whole_after_their_pieces": mutant(STREAM, lambda events: [*events[:-1], events[1], events[-1]] if calls(events) else events, "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_null_arguments": mutant(STREAM, every(_later_calls, lambda call: call["function"].update(arguments=None)), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_pieces_without_a_function": mutant(STREAM, every(_later_calls, lambda call: call.update(arguments=call.pop("function")["arguments"])), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "streams_calls_as_function_call": mutant(STREAM, lambda events: [delta.update(function_call=delta.pop("tool_calls")[0]["function"]) for delta in deltas(events) if delta.get("tool_calls")] and None, "tools", "streamed_tool_calls_can_be_assembled[required]"),
    # Whole tool calls
    "calls_without_id": mutant(WHOLE, every(calls, drop("id")), "tools", "a_tool_call_has_openais_format[required]"),
    "calls_with_an_empty_id": mutant(WHOLE, every(calls, put(id="")), "tools", "a_tool_call_has_openais_format[required]"),
    "calls_with_a_number_as_id": mutant(WHOLE, every(calls, put(id=0)), "tools", "a_tool_call_has_openais_format[required]"),
    "calls_with_one_id_for_all": mutant(WHOLE, _one_id, "tools", "a_tool_call_has_openais_format[required]"),
    "calls_parallel_tools_with_one_id": mutant(WHOLE, _merged, "tools", "parallel_tool_calls_are_told_apart"),
    "calls_without_type": mutant(WHOLE, every(calls, drop("type")), "tools", "a_tool_call_has_openais_format[required]"),
    "calls_of_another_type": mutant(WHOLE, every(calls, put(type="tool")), "tools", "a_tool_call_has_openais_format[required]"),
    "calls_with_objects": mutant(WHOLE, _function(lambda function: function.update(arguments=json.loads(function["arguments"]))), "tools", "a_tool_call_has_openais_format[required]"),
    "calls_with_arguments_encoded_twice": mutant(WHOLE, _function(lambda function: function.update(arguments=json.dumps(function["arguments"]))), "tools", "a_tool_call_has_openais_format[required]"),
    "calls_with_parameters_for_arguments": mutant(WHOLE, _function(lambda function: function.update(parameters=function.pop("arguments"))), "tools", "a_tool_call_has_openais_format[required]"),
    "calls_with_empty_arguments": mutant(WHOLE, _function(put(arguments="{}")), "tools", "a_tool_call_has_openais_format[required]"),
    "calls_with_unknown_arguments": mutant(WHOLE, _function(put(arguments='{"city": "Oslo", "stars": 9, "open": "yes"}')), "tools", "a_tool_call_has_openais_format[required]"),
    "calls_as_text_too": mutant(WHOLE, _text_besides, "tools", "a_tool_call_has_openais_format[required]"),
    "calls_as_function_call": mutant(WHOLE, lambda document: [message.update(function_call=message.pop("tool_calls")[0]["function"]) for message in messages(document) if message.get("tool_calls")], "tools", "a_tool_call_has_openais_format[required]"),
    "stops_for_tool_calls": mutant(WHOLE, _ends("stop"), "tools", "with_tool_choice_auto_the_finish_reason_tells_of_calls[whole]"),
    "ends_tool_calls_with_null": mutant(WHOLE, _ends(None), "tools", "a_tool_call_ends_with_its_finish_reason[required]"),
    "ends_tool_calls_with_length": mutant(WHOLE, _ends("length"), "tools", "a_tool_call_ends_with_its_finish_reason[required]"),
    "truncates_calls_as_complete": mutant(WHOLE, _never_cut, "tools", "a_truncated_tool_call_ends_with_length[whole]"),
    "calls_whatever_the_choice": mutant("chat request", lambda request: request.get("tool_choice") == "none" and request.pop("tool_choice"), "tools", "tool_choice_none_calls_no_tool[streamed]"),
    "calls_without_a_choice_need_no_reason": mutant(WHOLE, lambda document: [choice.update(finish_reason="tool_calls") for choice in choices(document) if not choice["message"].get("tool_calls")], "tools", "tool_choice_none_calls_no_tool[whole]"),
    "calls_in_parallel_unasked": mutant("chat request", drop("parallel_tool_calls"), "tools", "parallel_tool_calls_can_be_switched_off"),
    "calls_the_first_tool": mutant(WHOLE, _function(put(name="find_hotel")), "tools", "a_named_tool_is_called"),
    "accepts_unknown_tools": mutant("chat request", _any_choice(lambda request: "no_such_tool" in str(request.get("tool_choice"))), "tools", "wrong_tools_are_400[another_name]"),
    "accepts_required_without_tools": mutant("chat request", _any_choice(lambda request: not request.get("tools")), "tools", "wrong_tools_are_400[no_tools]"),
    "accepts_unknown_choices": mutant("chat request", _any_choice(lambda request: request.get("tool_choice") == "sometimes"), "tools", "wrong_tools_are_400[no_such_choice]"),
    "accepts_tools_without_a_function": mutant("chat request", _any_choice(lambda request: "'function': {" not in str(request.get("tools", "'function': {"))), "tools", "wrong_tools_are_400[no_function]"),
    "refuses_tool_choice_none_without_tools": mutant("chat request", lambda request: request.update(temperature=-1) if request.get("tool_choice") == "none" and not request.get("tools") else None, "tools", "tool_choice_none_needs_no_tools"),
    "refuses_calls_without_content": mutant("chat request", lambda request: request.update(temperature=-1) if any("content" not in turn for turn in request.get("messages") or ()) else None, "tools", "a_tool_call_can_be_sent_back[absent]"),
    "refuses_calls_with_null_content": mutant("chat request", lambda request: request.update(temperature=-1) if any(turn.get("content", "") is None for turn in request.get("messages") or ()) else None, "tools", "a_tools_result_is_read"),
    "refuses_calls_with_empty_content": mutant("chat request", lambda request: request.update(temperature=-1) if any(turn.get("content") == "" for turn in request.get("messages") or ()) else None, "tools", "a_tool_call_can_be_sent_back[empty]"),
    "refuses_the_tool_role": mutant("chat request", lambda request: request.update(temperature=-1) if "'tool_call_id'" in str(request.get("messages")) else None, "tools", "a_tools_result_is_read"),
    "ignores_tool_choice": mutant("chat request", drop("tool_choice"), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "ignores_tools": mutant("chat request", drop("tools", "tool_choice"), "tools", "streamed_tool_calls_can_be_assembled[required]"),
    "calls_every_tool": mutant("chat request", lambda request: request.update(tool_choice="required") if isinstance(request.get("tool_choice"), dict) else None, "tools", "wrong_tools_are_400[another_name]"),
    # Structured output
    "ignores_json_mode": mutant("chat request", _json_mode(drop("response_format")), "structured", "json_mode_answers_a_json_object[streamed]"),
    "ignores_json_mode_in_streams": mutant("chat request", _json_mode(lambda request: request.get("stream") and request.pop("response_format")), "structured", "json_mode_answers_a_json_object[streamed]"),
    "refuses_json_mode": mutant("chat request", _json_mode(put(temperature=-1)), "structured", "json_mode_answers_a_json_object[streamed]"),
    "answers_json_in_a_code_fence": mutant(WHOLE, _wraps("```json\n", "\n```"), "structured", "a_json_schema_is_kept"),
    "answers_json_with_a_word_after": mutant(WHOLE, _wraps("", " Enjoy!"), "structured", "a_json_schema_is_kept"),
    "answers_json_in_a_list": mutant(WHOLE, _wraps("[", "]"), "structured", "a_json_schema_is_kept"),
    "answers_json_as_objects": mutant(WHOLE, every(messages, lambda message: message.update(content=json.loads(message["content"]))), "structured", "a_json_schema_is_kept"),
    "streams_json_in_a_code_fence": mutant(STREAM, lambda events: _streamed(events, "```json\n{}\n```"), "structured", "a_json_schema_is_kept_in_a_stream"),
    "streams_broken_json": mutant(STREAM, lambda events: _streamed(events, '{"city": '), "structured", "a_json_schema_is_kept_in_a_stream"),
    "truncates_structured_answers": mutant(WHOLE, every(choices, put(finish_reason="length")), "structured", "a_json_schema_is_kept"),
    "ignores_references_in_schemas": mutant("chat request", _broken_schema, "structured", "a_nested_json_schema_is_kept"),
}
# fmt: on
