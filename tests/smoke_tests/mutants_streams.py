"""Faults of streams: server-sent events, chunks, usage, and the events of streamed responses."""

import json
from typing import Any

from tests.smoke_tests.fault import Body, Fault, choices, chunks, deltas, drop, every, mutant, put, usages


def _later(parts: Any) -> Any:
    """Return a selection of all but the first of the parts."""
    return lambda events: parts(events)[1:]


def _last(parts: Any) -> Any:
    """Return a selection of the last of the parts."""
    return lambda events: parts(events)[-1:]


def _unasked_usage(events: list[Body]) -> list[Body]:
    usage = {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17}
    return events if usages(events) else [*events, events[0] | {"choices": [], "usage": usage}]


def _usage_in_the_last_chunk(events: list[Body]) -> list[Body]:
    usage = {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17}
    return events if usages(events) else [*events[:-1], events[-1] | {"usage": usage}]


def _merged_usage(events: list[Body]) -> list[Body]:
    return [*events[:-2], events[-2] | {"usage": events[-1]["usage"]}] if usages(events) else events


def _usage_first(events: list[Body]) -> list[Body]:
    return [events[-1], *events[:-1]] if usages(events) else events


def _finish_in_every_chunk(events: list[Body]) -> None:
    for choice in choices(events):
        choice["finish_reason"] = choice["finish_reason"] or "stop"


def _goes_on_after_the_end(events: list[Body]) -> list[Body]:
    end = next(index for index, event in enumerate(events) if event["choices"] and event["choices"][0]["finish_reason"])
    after = json.loads(json.dumps(events[end]))
    after["choices"][0]["finish_reason"] = None
    return [*events[: end + 1], after, *events[end + 1 :]]


def _ends_twice(events: list[Body]) -> list[Body]:
    end = next(index for index, event in enumerate(events) if event["choices"] and event["choices"][0]["finish_reason"])
    return [*events[: end + 1], *events[end:]]


def _empty_chunk_first(events: list[Body]) -> list[Body]:
    return [events[0] | {"choices": []}, *events]


def _of_index(number: int) -> Any:
    return lambda events: [choice for choice in choices(events) if choice["index"] == number]


def _first_role_only(events: list[Body]) -> None:
    for choice in choices(events):
        if choice["index"]:
            choice["delta"].pop("role", None)


def _cumulative(events: list[Body]) -> None:
    text = ""
    for delta in deltas(events):
        text += delta.get("content") or ""
        if "content" in delta:
            delta["content"] = text


def _tokens(events: list[Body]) -> list[Body]:
    return [token for choice in choices(events) for token in ((choice.get("logprobs") or {}).get("content") or ())]


def _logprobs_at_the_end(events: list[Body]) -> None:
    told = choices(events)
    for choice in told[:-2]:
        choice["logprobs"] = None


def _stop_text(events: list[Body]) -> None:
    told = choices(events)
    if told[-1]["finish_reason"] == "stop" and "content" in told[-1]["delta"]:
        told[-1]["delta"]["content"] += "x"


def _mangled(events: list[Body]) -> None:
    for choice in choices(events):
        choice["text"] = choice["text"].encode("ascii", "replace").decode()


def _renumbered(change: Any) -> Any:
    def changed(events: list[Body]) -> None:
        for number, event in enumerate(events):
            event["sequence_number"] = change(number)

    return changed


def _omitting(*kinds: str) -> Any:
    def changed(events: list[Body]) -> list[Body]:
        kept = [event for event in events if event["type"].removeprefix("response.") not in kinds]
        _renumbered(int)(kept)
        return kept

    return changed


def _in_events(kind: str, change: Any) -> Any:
    """Return a change of each event whose type ends with `kind`."""
    return every(lambda events: [event for event in events if event["type"].endswith(kind)], change)


def _final(change: Any) -> Any:
    return lambda events: change(events[-1]["response"])


def _late_item(events: list[Body]) -> None:
    events[2], events[4] = events[4], events[2]
    _renumbered(int)(events)


def _early_done(events: list[Body]) -> None:
    last = max(index for index, event in enumerate(events) if event["type"].endswith("delta"))
    events[last], events[last + 1] = events[last + 1], events[last]
    _renumbered(int)(events)


def _messages(document: Body) -> list[Body]:
    return [item for item in document["output"] if item["type"] == "message"]


def _parts(document: Body) -> list[Body]:
    return [part for item in _messages(document) for part in item["content"]]


def _function_calls(document: Body) -> list[Body]:
    return [item for item in document["output"] if item["type"] == "function_call"]


CHAT, TEXT, EVENTS = "chat stream", "completions stream", "responses stream"
# One fault a line: what it changes, how, and the test that catches it.
# fmt: off
STREAMS: dict[str, Fault] = {
    # Server-sent events
    "sends_done_twice": mutant("last line", lambda line: line * 2, "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_no_blank_lines": mutant("lines", lambda line: line.replace(b"\n\n", b"\n"), "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_bare_json_lines": mutant("lines", lambda line: line.removeprefix(b"data: "), "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_json_over_two_lines": mutant("lines", lambda line: line.replace(b', "', b',\n "', 1), "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_broken_json": mutant("lines", lambda line: line.replace(b"}\n", b"\n"), "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_python_literals": mutant("lines", lambda line: line.replace(b"null", b"None"), "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_done_in_lower_case": mutant("last line", lambda line: line.lower(), "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_done_before_the_end": mutant("lines", lambda line: b"data: [DONE]\n\n" + line if b'"length"' in line else line, "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_done_without_data": mutant("last line", lambda line: line.removeprefix(b"data: "), "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_errors_within_the_stream": mutant("last line", lambda line: b'data: {"error": {"message": "aborted"}}\n\n' + line, "stream_format", "a_stream_consists_of_server_sent_events"),
    "streams_as_plain_text": mutant("content type", lambda given: "text/plain" if given == "text/event-stream" else given, "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_indented_data_lines": mutant("lines", lambda line: b" " + line, "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_latin_1": mutant("lines", lambda line: line.replace(b'"content": " ', b'"content": "\xe9'), "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_infinity": mutant("lines", lambda line: line.replace(b'"logprobs": null', b'"logprobs": NaN'), "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_null_events": mutant("lines", lambda line: b"data: null\n\n" + line, "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_a_list_of_chunks": mutant("lines", lambda line: line.replace(b"data: {", b"data: [{").replace(b"}\n", b"}]\n"), "stream_format", "a_stream_consists_of_server_sent_events"),
    "sends_no_last_blank_line": mutant("last line", lambda line: line.rstrip(), "stream_format", "a_stream_consists_of_server_sent_events"),
    # Chunks
    "streams_without_object": mutant(CHAT, every(chunks, drop("object")), "stream_format", "chunks_have_openais_format"),
    "streams_whole_answers": mutant(CHAT, every(chunks, put(object="chat.completion")), "stream_format", "chunks_have_openais_format"),
    "streams_without_created": mutant(CHAT, every(chunks, drop("created")), "stream_format", "chunks_have_openais_format"),
    "streams_without_id": mutant(CHAT, every(chunks, drop("id")), "stream_format", "chunks_have_openais_format"),
    "streams_with_an_empty_id": mutant(CHAT, every(chunks, put(id="")), "stream_format", "the_chunks_of_a_stream_are_identified"),
    "streams_with_one_id_for_all": mutant(CHAT, every(chunks, put(id="chatcmpl-1")), "stream_format", "the_chunks_of_a_stream_are_identified"),
    "streams_without_model": mutant(CHAT, every(chunks, drop("model")), "stream_format", "chunks_have_openais_format"),
    "streams_as_another_model": mutant(CHAT, every(chunks, put(model="other/model")), "stream_format", "the_chunks_of_a_stream_are_identified"),
    "streams_the_model_once": mutant(CHAT, every(_later(chunks), put(model="")), "stream_format", "the_chunks_of_a_stream_are_identified"),
    "changes_created_within_a_stream": mutant(CHAT, every(_last(chunks), lambda chunk: chunk.update(created=chunk["created"] + 1)), "stream_format", "the_chunks_of_a_stream_are_identified"),
    "dates_chunks_in_milliseconds": mutant(CHAT, every(chunks, put(created=1_700_000_000_000)), "stream_format", "the_chunks_of_a_stream_are_identified"),
    "changes_the_id_for_the_usage": mutant(CHAT, every(lambda events: events[-1:] if usages(events) else [], put(id="chatcmpl-2")), "stream_format", "the_chunks_of_a_stream_are_identified"),
    "streams_without_index": mutant(CHAT, every(choices, drop("index")), "stream_format", "chunks_have_openais_format"),
    "streams_with_a_text_index": mutant(CHAT, every(choices, lambda choice: choice.update(index=str(choice["index"]))), "stream_format", "chunks_have_openais_format"),
    "streams_without_finish_reason_fields": mutant(CHAT, every(choices, lambda choice: choice["finish_reason"] or choice.pop("finish_reason")), "stream_format", "chunks_have_openais_format"),
    "streams_empty_finish_reasons": mutant(CHAT, every(choices, lambda choice: choice["finish_reason"] or choice.update(finish_reason="")), "stream_format", "chunks_have_openais_format"),
    "streams_a_finish_reason_in_every_chunk": mutant(CHAT, _finish_in_every_chunk, "stream_format", "the_finish_reason_is_in_the_last_chunk"),
    "streams_its_own_finish_reason": mutant(CHAT, every(choices, lambda choice: choice["finish_reason"] and choice.update(finish_reason="end_turn")), "stream_format", "chunks_have_openais_format"),
    "streams_stop_for_length": mutant(CHAT, every(choices, lambda choice: choice["finish_reason"] and choice.update(finish_reason="stop")), "stream_format", "the_finish_reason_is_in_the_last_chunk"),
    "streams_no_finish_reason": mutant(CHAT, every(choices, put(finish_reason=None)), "stream_format", "the_finish_reason_is_in_the_last_chunk"),
    "goes_on_after_the_finish_reason": mutant(CHAT, _goes_on_after_the_end, "stream_format", "the_finish_reason_is_in_the_last_chunk"),
    "ends_a_stream_twice": mutant(CHAT, _ends_twice, "stream_format", "the_finish_reason_is_in_the_last_chunk"),
    "streams_messages_for_deltas": mutant(CHAT, every(choices, lambda choice: choice.update(message=choice["delta"])), "stream_format", "chunks_have_openais_format"),
    "streams_without_deltas": mutant(CHAT, every(choices, lambda choice: choice.update(text=choice.pop("delta").get("content"))), "stream_format", "chunks_have_openais_format"),
    "streams_null_deltas_at_the_end": mutant(CHAT, every(_last(choices), put(delta=None)), "stream_format", "chunks_have_openais_format"),
    "streams_roles_in_every_chunk": mutant(CHAT, every(deltas, put(role="assistant")), "stream_format", "the_role_is_in_the_first_chunk"),
    "streams_a_late_role": mutant(CHAT, lambda events: events[0]["choices"][0]["delta"].pop("role") and events[1]["choices"][0]["delta"].update(role="assistant"), "stream_format", "the_role_is_in_the_first_chunk"),
    "streams_empty_roles": mutant(CHAT, every(_later(deltas), put(role="")), "stream_format", "chunks_have_openais_format"),
    "streams_as_the_model": mutant(CHAT, every(lambda events: deltas(events)[:1], put(role="model")), "stream_format", "chunks_have_openais_format"),
    "streams_content_parts": mutant(CHAT, every(deltas, lambda delta: delta.update(content=[{"type": "text", "text": delta.get("content")}])), "stream_format", "chunks_have_openais_format"),
    "streams_the_text_so_far": mutant(CHAT, _cumulative, "streaming", "stream_says_what_the_whole_answer_says"),
    "streams_empty_tool_calls": mutant(CHAT, every(deltas, put(function_call={"name": "", "arguments": ""})), "stream_format", "chunks_have_openais_format"),
    "streams_a_chunk_without_choices_first": mutant(CHAT, _empty_chunk_first, "stream_format", "chunks_have_openais_format"),
    "streams_a_refusal": mutant(CHAT, every(_last(deltas), put(refusal="I cannot.")), "stream_format", "chunks_have_openais_format"),
    "streams_logprobs_unasked": mutant(CHAT, every(choices, lambda choice: choice["logprobs"] or choice.update(logprobs={"content": [{"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}]})), "stream_format", "chunks_have_openais_format"),
    # Usage
    "streams_a_usage_chunk_unasked": mutant(CHAT, _unasked_usage, "stream_format", "a_stream_has_no_usage_unless_requested"),
    "streams_usage_in_the_last_chunk_unasked": mutant(CHAT, _usage_in_the_last_chunk, "stream_format", "a_stream_has_no_usage_unless_requested"),
    "streams_usage_with_the_last_choice": mutant(CHAT, _merged_usage, "stream_format", "streamed_usage_is_exact"),
    "streams_usage_first": mutant(CHAT, _usage_first, "stream_format", "chunks_have_openais_format"),
    "streams_usage_without_a_choices_field": mutant(CHAT, every(lambda events: events[-1:] if usages(events) else [], drop("choices")), "stream_format", "chunks_have_openais_format"),
    "streams_usage_with_a_choice": mutant(CHAT, every(lambda events: events[-1:] if usages(events) else [], put(choices=[{"index": 0, "delta": {}, "finish_reason": None}])), "stream_format", "streamed_usage_is_exact"),
    "streams_zero_usage": mutant(CHAT, every(usages, put(prompt_tokens=0, completion_tokens=0, total_tokens=0)), "stream_format", "streamed_usage_is_exact"),
    "streams_usage_that_does_not_add_up": mutant(CHAT, every(usages, lambda usage: usage.update(total_tokens=usage["completion_tokens"])), "stream_format", "streamed_usage_is_exact"),
    "counts_chunks_as_tokens": mutant(CHAT, lambda events: [usage.update(completion_tokens=len(events), total_tokens=len(events) + usage["prompt_tokens"]) for usage in usages(events)], "stream_format", "streamed_usage_is_exact"),
    "counts_other_prompt_tokens_in_streams": mutant(CHAT, every(usages, lambda usage: usage.update(prompt_tokens=usage["prompt_tokens"] + 3, total_tokens=usage["total_tokens"] + 3)), "stream_format", "streamed_usage_is_exact"),
    "streams_usage_with_null_choices": mutant(CHAT, every(lambda events: events[-1:] if usages(events) else [], put(choices=None)), "stream_format", "chunks_have_openais_format"),
    "streams_usage_twice": mutant(CHAT, lambda events: [*events, events[-1]] if usages(events) else events, "stream_format", "chunks_have_openais_format"),
    "streams_usage_without_being_asked_not_to": mutant("chat request", lambda request: request.update(stream_options={"include_usage": True}) if request.get("stream") else None, "stream_format", "a_stream_has_no_usage_unless_requested"),
    # Several answers
    "streams_one_role_for_n": mutant(CHAT, _first_role_only, "stream_format", "each_of_n_streamed_answers_is_complete"),
    "ends_only_the_first_of_n_streams": mutant(CHAT, every(_of_index(1), put(finish_reason=None)), "stream_format", "each_of_n_streamed_answers_is_complete"),
    "streams_nothing_in_the_last_of_n": mutant(CHAT, every(lambda events: [choice["delta"] for choice in _of_index(2)(events)], put(content="")), "stream_format", "each_of_n_streamed_answers_is_complete"),
    "counts_one_of_n_streams": mutant(CHAT, every(usages, lambda usage: usage.update(completion_tokens=8, total_tokens=8 + usage["prompt_tokens"])), "stream_format", "each_of_n_streamed_answers_is_complete"),
    "streams_all_but_one_of_n": mutant(CHAT, lambda events: [event for event in events if not event["choices"] or event["choices"][0]["index"] < 2], "stream_format", "each_of_n_streamed_answers_is_complete"),
    # Log probabilities, stop, text
    "streams_no_logprobs": mutant(CHAT, every(choices, put(logprobs=None)), "stream_format", "log_probabilities_are_streamed"),
    "streams_logprobs_of_the_last_tokens": mutant(CHAT, _logprobs_at_the_end, "stream_format", "log_probabilities_are_streamed"),
    "streams_logprobs_as_text_completions": mutant(CHAT, every(choices, lambda choice: choice["logprobs"] and choice.update(logprobs={"tokens": ["a"], "token_logprobs": [-1.0]})), "stream_format", "log_probabilities_are_streamed"),
    "streams_fewer_alternatives": mutant(CHAT, every(_tokens, lambda token: token["top_logprobs"].pop()), "stream_format", "log_probabilities_are_streamed"),
    "streams_probabilities": mutant(CHAT, every(_tokens, put(logprob=0.5)), "stream_format", "log_probabilities_are_streamed"),
    "streams_logprobs_without_tokens": mutant(CHAT, every(_tokens, drop("token")), "stream_format", "log_probabilities_are_streamed"),
    "loses_the_finish_reason_with_logprobs": mutant(CHAT, every(choices, lambda choice: choice["logprobs"] and choice.pop("finish_reason", None)), "stream_format", "log_probabilities_are_streamed"),
    "streams_past_the_stop": mutant("chat request", lambda request: request.get("stream") and request.pop("stop", None), "stream_format", "a_stop_sequence_ends_a_stream"),
    "streams_a_part_of_the_stop": mutant(CHAT, _stop_text, "stream_format", "a_stop_sequence_ends_a_stream"),
    "streams_length_for_stop": mutant(CHAT, every(choices, lambda choice: choice["finish_reason"] and choice.update(finish_reason="length")), "stream_format", "a_stop_sequence_ends_a_stream"),
    "mangles_foreign_text_in_streams": mutant(TEXT, _mangled, "stream_format", "foreign_text_survives_a_stream"),
    "loses_text_that_was_held_back": mutant("chat request", lambda request: request.update(stop=request["stop"][0][:6]) if request.get("stream") and isinstance(request.get("stop"), list) else None, "stream_format", "a_partial_stop_sequence_is_not_lost"),
    # Text completions
    "streams_text_as_chat": mutant(TEXT, every(chunks, put(object="chat.completion.chunk")), "stream_format", "streamed_text_completions_have_openais_format"),
    "streams_text_with_many_ids": mutant(TEXT, lambda events: [event.update(id=f"cmpl-{number}") for number, event in enumerate(events)], "stream_format", "streamed_text_completions_have_openais_format"),
    "streams_text_without_id": mutant(TEXT, every(chunks, drop("id")), "stream_format", "streamed_text_completions_have_openais_format"),
    "streams_text_without_created": mutant(TEXT, every(chunks, drop("created")), "stream_format", "streamed_text_completions_have_openais_format"),
    "streams_text_as_another_model": mutant(TEXT, every(chunks, put(model="other/model")), "stream_format", "streamed_text_completions_have_openais_format"),
    "streams_text_in_deltas": mutant(TEXT, every(choices, lambda choice: choice.update(delta={"content": choice.pop("text")})), "stream_format", "streamed_text_completions_have_openais_format"),
    "streams_text_without_an_end": mutant(TEXT, every(choices, put(finish_reason=None)), "stream_format", "streamed_text_completions_have_openais_format"),
    "streams_text_with_a_usage_chunk_unasked": mutant(TEXT, _unasked_usage, "stream_format", "text_completions_stream_no_usage_unless_requested"),
    "streams_text_with_one_index": mutant(TEXT, every(choices, put(index=0)), "stream_format", "several_prompts_are_streamed_by_index"),
    "streams_text_with_empty_finish_reasons": mutant(TEXT, every(choices, lambda choice: choice["finish_reason"] or choice.update(finish_reason="")), "stream_format", "streamed_text_completions_have_openais_format"),
    "streams_no_text_logprobs": mutant(TEXT, every(choices, put(logprobs=None)), "stream_format", "log_probabilities_of_text_completions_are_streamed"),
    "streams_text_offsets_from_zero": mutant(TEXT, every(lambda events: [choice["logprobs"] for choice in choices(events) if choice["logprobs"]], put(text_offset=[0])), "stream_format", "log_probabilities_of_text_completions_are_streamed"),
    "streams_text_logprobs_as_chat": mutant(TEXT, every(choices, lambda choice: choice["logprobs"] and choice.update(logprobs={"content": []})), "stream_format", "log_probabilities_of_text_completions_are_streamed"),
    "streams_text_logprobs_without_tokens": mutant(TEXT, every(lambda events: [choice["logprobs"] for choice in choices(events) if choice["logprobs"]], put(tokens=[])), "stream_format", "log_probabilities_of_text_completions_are_streamed"),
    # Responses, whole
    "responds_without_id": mutant("responses answer", drop("id"), "responses", "a_response_has_openais_format"),
    "responds_with_one_id_for_all": mutant("responses answer", put(id="resp_1"), "responses", "a_response_has_openais_format"),
    "responds_as_chat": mutant("responses answer", put(object="chat.completion"), "responses", "a_response_is_made"),
    "responds_with_created": mutant("responses answer", lambda document: document.update(created=document.pop("created_at")), "responses", "a_response_has_openais_format"),
    "responds_as_another_model": mutant("responses answer", put(model="other/model"), "responses", "a_response_is_made"),
    "responds_with_text": mutant("responses answer", lambda document: document.update(output=document["output"][0].get("content", [{}])[0].get("text")), "responses", "a_response_may_have_a_json_schema"),
    "responds_with_choices": mutant("responses answer", lambda document: document.update(choices=document.pop("output")), "responses", "a_response_may_have_a_json_schema"),
    "responds_as_the_user": mutant("responses answer", every(_messages, put(role="user")), "responses", "a_response_has_openais_format"),
    "responds_without_message_ids": mutant("responses answer", every(_messages, drop("id")), "responses", "a_response_has_openais_format"),
    "responds_with_content_as_text": mutant("responses answer", every(_messages, lambda item: item.update(content=item["content"][0]["text"])), "responses", "a_response_may_have_a_json_schema"),
    "responds_with_text_parts": mutant("responses answer", every(_parts, put(type="text")), "responses", "a_response_may_have_a_json_schema"),
    "responds_without_annotations": mutant("responses answer", every(_parts, drop("annotations")), "responses", "a_response_has_openais_format"),
    "responds_without_tools": mutant("responses answer", drop("tools"), "responses", "a_response_has_openais_format"),
    "responds_without_usage_details": mutant("responses answer", lambda document: document["usage"].pop("output_tokens_details"), "responses", "a_response_has_openais_format"),
    "responds_with_usage_of_chat": mutant("responses answer", lambda document: document.update(usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}), "responses", "a_response_has_openais_format"),
    "responds_completed_if_truncated": mutant("responses answer", put(status="completed", incomplete_details=None), "responses", "a_truncated_response_is_incomplete"),
    "responds_incomplete_without_a_reason": mutant("responses answer", put(incomplete_details=None), "responses", "a_truncated_response_is_incomplete"),
    "responds_in_progress": mutant("responses answer", put(status="in_progress"), "responses", "a_truncated_response_is_incomplete"),
    "ignores_max_output_tokens": mutant("responses request", drop("max_output_tokens"), "responses", "a_truncated_response_is_incomplete"),
    "ignores_text_formats": mutant("responses request", drop("text"), "responses", "a_response_may_have_a_json_schema"),
    "ignores_tools_in_responses": mutant("responses request", drop("tools", "tool_choice"), "responses", "a_response_may_call_a_tool"),
    "calls_tools_without_call_id": mutant("responses answer", every(_function_calls, drop("call_id")), "responses", "a_response_may_call_a_tool"),
    "calls_tools_with_objects": mutant("responses answer", every(_function_calls, put(arguments={"city": "Rome"})), "responses", "a_response_may_call_a_tool"),
    "ignores_previous_responses": mutant("responses request", drop("previous_response_id"), "responses", "an_unknown_previous_response_is_refused"),
    "responds_to_the_last_part": mutant("responses request", lambda request: [turn.update(content=turn["content"][-1:]) for turn in request["input"] if isinstance(turn.get("content"), list)] if isinstance(request.get("input"), list) else None, "responses", "input_may_have_parts_and_a_developer"),
    "responds_without_the_developer": mutant("responses request", lambda request: request.update(input=[turn for turn in request["input"] if turn.get("role") != "developer"]) if isinstance(request.get("input"), list) else None, "responses", "input_may_have_parts_and_a_developer"),
    "refuses_the_developer_in_responses": mutant("responses request", lambda request: request.update(temperature=-1) if "'developer'" in str(request.get("input")) else None, "responses", "input_may_have_parts_and_a_developer"),
    "responds_without_results_of_tools": mutant("responses request", lambda request: request.update(input=[turn for turn in request["input"] if turn.get("type") != "function_call_output"]) if isinstance(request.get("input"), list) else None, "responses", "a_response_reads_the_result_of_a_tool"),
    "refuses_results_of_tools_in_responses": mutant("responses request", lambda request: request.update(temperature=-1) if "function_call_output" in str(request.get("input")) else None, "responses", "a_response_reads_the_result_of_a_tool"),
    # Responses, streamed
    "streams_no_sequence_numbers": mutant(EVENTS, every(chunks, drop("sequence_number")), "responses", "a_response_is_streamed"),
    "streams_sequence_numbers_from_one": mutant(EVENTS, _renumbered(lambda number: number + 1), "responses", "streamed_events_have_openais_format"),
    "streams_gaps_in_sequence_numbers": mutant(EVENTS, _renumbered(lambda number: number * 2), "responses", "streamed_events_have_openais_format"),
    "streams_equal_sequence_numbers": mutant(EVENTS, _renumbered(lambda number: min(number, 4)), "responses", "a_response_is_streamed"),
    "streams_events_without_names": mutant("lines", lambda line: line[line.index(b"data: ") :], "responses", "streamed_events_have_openais_format"),
    "streams_other_event_names": mutant("lines", lambda line: line.replace(b"event: response.", b"event: "), "responses", "streamed_events_have_openais_format"),
    "omits_in_progress": mutant(EVENTS, _omitting("in_progress"), "responses", "streamed_events_are_nested"),
    "omits_added_items": mutant(EVENTS, _omitting("output_item.added"), "responses", "streamed_events_are_nested"),
    "omits_added_parts": mutant(EVENTS, _omitting("content_part.added"), "responses", "streamed_events_are_nested"),
    "omits_done_text": mutant(EVENTS, _omitting("output_text.done"), "responses", "a_streamed_response_is_the_whole_response"),
    "omits_done_parts": mutant(EVENTS, _omitting("content_part.done"), "responses", "streamed_events_are_nested"),
    "omits_done_items": mutant(EVENTS, _omitting("output_item.done"), "responses", "streamed_events_are_nested"),
    "omits_deltas": mutant(EVENTS, _omitting("output_text.delta"), "responses", "a_response_is_streamed"),
    "omits_the_final_response": mutant(EVENTS, _omitting("completed", "incomplete"), "responses", "a_response_is_streamed"),
    "adds_items_late": mutant(EVENTS, _late_item, "responses", "streamed_events_are_nested"),
    "ends_text_before_its_last_delta": mutant(EVENTS, _early_done, "responses", "streamed_events_are_nested"),
    "streams_deltas_without_item_ids": mutant(EVENTS, _in_events(".delta", drop("item_id")), "responses", "streamed_events_have_openais_format"),
    "streams_deltas_with_other_item_ids": mutant(EVENTS, _in_events(".delta", put(item_id="msg_2")), "responses", "streamed_events_are_nested"),
    "streams_deltas_without_content_index": mutant(EVENTS, _in_events(".delta", drop("content_index")), "responses", "streamed_events_have_openais_format"),
    "streams_half_of_the_done_text": mutant(EVENTS, _in_events("text.done", lambda event: event.update(text=event["text"][:5])), "responses", "a_streamed_response_is_the_whole_response"),
    "streams_an_empty_final_response": mutant(EVENTS, _final(put(output=[])), "responses", "a_streamed_response_is_the_whole_response"),
    "streams_a_final_response_in_progress": mutant(EVENTS, _final(put(status="in_progress")), "responses", "a_streamed_response_is_the_whole_response"),
    "streams_a_final_response_without_usage": mutant(EVENTS, _final(put(usage=None)), "responses", "a_streamed_response_is_the_whole_response"),
    "streams_a_final_response_with_another_id": mutant(EVENTS, _final(put(id="resp_2")), "responses", "a_streamed_response_is_the_whole_response"),
    "streams_a_completed_beginning": mutant(EVENTS, lambda events: events[0]["response"].update(status="completed"), "responses", "a_streamed_response_is_the_whole_response"),
    "streams_arguments_without_done": mutant(EVENTS, _omitting("function_call_arguments.done"), "responses", "a_tool_call_of_a_response_is_streamed"),
    "streams_arguments_without_deltas": mutant(EVENTS, _omitting("function_call_arguments.delta"), "responses", "a_tool_call_of_a_response_is_streamed"),
    "streams_arguments_of_another_item": mutant(EVENTS, _in_events("arguments.delta", put(item_id="fc_2")), "responses", "a_tool_call_of_a_response_is_streamed"),
    "streams_half_of_the_done_arguments": mutant(EVENTS, _in_events("arguments.done", put(arguments="{")), "responses", "a_tool_call_of_a_response_is_streamed"),
    "streams_arguments_as_text": mutant(EVENTS, _in_events("arguments.delta", put(type="response.output_text.delta", content_index=0, logprobs=[])), "responses", "a_tool_call_of_a_response_is_streamed"),
    "ends_responses_with_done": mutant(EVENTS, lambda events: [*events[:-1], events[-1] | {"type": "response.done"}], "responses", "a_response_is_streamed"),
}
# fmt: on
