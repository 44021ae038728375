"""Faults of whole answers: chat, text completions, models, errors and embeddings, each a change on the wire."""

import base64
import struct
from typing import Any

from tests.smoke_tests.fake_model import MODEL
from tests.smoke_tests.fault import Body, Fault, choices, drop, every, messages, mutant, put, usages


def _logprobs(document: Body) -> list[Body]:
    """Return the chat log probabilities of each token, with those of the alternatives."""
    return [token for choice in choices(document) for token in ((choice.get("logprobs") or {}).get("content") or ())]


def _text_logprobs(document: Body) -> list[Body]:
    return [choice["logprobs"] for choice in choices(document) if choice.get("logprobs")]


def _vectors(change: Any) -> Any:
    """Return a change of each vector that is not in base64."""

    def changed(document: Body) -> None:
        for each in document["data"]:
            if isinstance(each["embedding"], list):
                each["embedding"] = change(each["embedding"])

    return changed


def _encoded(change: Any) -> Any:
    """Return a change of each vector that is in base64."""

    def changed(document: Body) -> None:
        for each in document["data"]:
            if isinstance(each["embedding"], str):
                content = base64.b64decode(each["embedding"])
                each["embedding"] = change(list(struct.unpack(f"<{len(content) // 4}f", content)))

    return changed


def _pack(code: str) -> Any:
    return lambda floats: base64.b64encode(struct.pack(code.format(len(floats)), *floats)).decode()


def _cap(request: Body) -> None:
    if not request.get("max_tokens") and not request.get("max_completion_tokens"):
        request["max_tokens"] = 100


def _repeat_usage(document: Body) -> None:
    if len(document["choices"]) > 1:
        document["usage"]["completion_tokens"] //= len(document["choices"])
        document["usage"]["total_tokens"] = document["usage"]["prompt_tokens"] + document["usage"]["completion_tokens"]


def _role(name: str, change: Any) -> Any:
    def changed(request: Body) -> None:
        turns = request.get("messages")
        if isinstance(turns, list):
            request["messages"] = change(turns, name)

    return changed


def _without(turns: list[Body], name: str) -> list[Body]:
    return [turn for turn in turns if turn["role"] != name]


def _refuse(turns: Any, name: str) -> Any:
    return "refused" if any(turn["role"] == name for turn in turns) else turns


def _error(change: Any) -> Any:
    return lambda reply: change(reply["body"]["error"])


def _flat(reply: Body) -> None:
    reply["body"] = {"object": "error"} | reply["body"]["error"]


def _status(before: int, after: int) -> Any:
    return lambda reply: reply.update(status=after) if reply["status"] == before else None


def _null_is_wrong(request: Body) -> None:
    if any(value is None for name, value in request.items() if name != "content"):
        request["temperature"] = -1


def _swap(document: Body) -> None:
    if len(document["choices"]) > 1:
        first, last = document["choices"][0], document["choices"][-1]
        first["text"], last["text"] = last["text"], first["text"]


# One fault a line: what it changes, how, and the test that catches it.
# fmt: off
ANSWERS: dict[str, Fault] = {
    # The format of a chat answer
    "answers_without_id": mutant("chat answer", drop("id"), "chat_format", "an_answer_has_openais_format"),
    "answers_with_an_empty_id": mutant("chat answer", put(id=""), "chat_format", "an_answer_has_openais_format"),
    "answers_with_a_number_as_id": mutant("chat answer", put(id=7), "chat_format", "an_answer_has_openais_format"),
    "answers_with_one_id_for_all": mutant("chat answer", put(id="chatcmpl-1"), "chat_format", "each_answer_has_its_own_id"),
    "answers_as_a_text_completion": mutant("chat answer", put(object="text_completion"), "chat_format", "an_answer_has_openais_format"),
    "answers_without_created": mutant("chat answer", drop("created"), "chat_format", "an_answer_has_openais_format"),
    "dates_answers_in_milliseconds": mutant("chat answer", put(created=1_700_000_000_000), "chat_format", "an_answer_has_openais_format"),
    "dates_answers_with_a_fraction": mutant("chat answer", put(created=1_700_000_000.5), "chat_format", "an_answer_has_openais_format"),
    "dates_answers_with_text": mutant("chat answer", put(created="2026-01-01"), "chat_format", "an_answer_has_openais_format"),
    "answers_under_an_alias": mutant("chat answer", put(model="model"), "chat_format", "an_answer_has_openais_format"),
    "answers_without_model": mutant("chat answer", drop("model"), "chat_format", "an_answer_has_openais_format"),
    "answers_without_index": mutant("chat answer", every(choices, drop("index")), "chat_format", "an_answer_has_openais_format"),
    "counts_answers_from_one": mutant("chat answer", every(choices, lambda choice: choice.update(index=choice["index"] + 1)), "chat_format", "an_answer_has_openais_format"),
    "answers_without_a_role": mutant("chat answer", every(messages, drop("role")), "chat_format", "an_answer_has_openais_format"),
    "answers_as_the_user": mutant("chat answer", every(messages, put(role="user")), "chat_format", "an_answer_has_openais_format"),
    "answers_without_content": mutant("chat answer", every(messages, drop("content")), "chat_format", "an_answer_has_openais_format"),
    "answers_in_content_parts": mutant("chat answer", every(messages, lambda message: message.update(content=[{"type": "text", "text": message["content"]}])), "chat_format", "an_answer_has_openais_format"),
    "answers_with_text_instead_of_a_message": mutant("chat answer", every(choices, lambda choice: choice.update(text=choice.pop("message")["content"])), "chat_format", "an_answer_has_openais_format"),
    "answers_with_a_delta": mutant("chat answer", every(choices, lambda choice: choice.update(delta=choice["message"])), "chat_format", "an_answer_has_openais_format"),
    "answers_with_tool_calls_of_none": mutant("chat answer", every(messages, put(tool_calls=[{"id": "call_1", "type": "function", "function": {"name": "", "arguments": ""}}])), "chat_format", "an_answer_has_openais_format"),
    "refuses_in_an_answer": mutant("chat answer", every(messages, put(refusal="I cannot.")), "chat_format", "an_answer_has_openais_format"),
    "answers_without_a_finish_reason": mutant("chat answer", every(choices, drop("finish_reason")), "chat_format", "an_answer_has_openais_format"),
    "answers_with_a_null_finish_reason": mutant("chat answer", every(choices, put(finish_reason=None)), "chat_format", "an_answer_has_openais_format"),
    "answers_with_an_empty_finish_reason": mutant("chat answer", every(choices, put(finish_reason="")), "chat_format", "an_answer_has_openais_format"),
    "answers_with_its_own_finish_reason": mutant("chat answer", every(choices, put(finish_reason="eos_token")), "chat_format", "an_answer_has_openais_format"),
    "calls_every_end_a_stop": mutant("chat answer", every(choices, put(finish_reason="stop")), "chat_format", "finish_reason_tells_a_truncated_answer"),
    "ends_only_the_first_of_n_answers": mutant("chat answer", lambda document: [choice.update(finish_reason=None) for choice in document["choices"][1:]], "chat_format", "each_of_n_answers_has_openais_format"),
    "answers_without_usage": mutant("chat answer", drop("usage"), "chat_format", "an_answer_has_openais_format"),
    "counts_in_text": mutant("chat answer", every(usages, lambda usage: usage.update(prompt_tokens=str(usage["prompt_tokens"]))), "chat_format", "an_answer_has_openais_format"),
    "forgets_the_prompt_in_the_total": mutant("chat answer", every(usages, lambda usage: usage.update(total_tokens=usage["completion_tokens"])), "chat_format", "an_answer_has_openais_format"),
    "counts_no_prompt_tokens": mutant("chat answer", every(usages, lambda usage: usage.update(prompt_tokens=0, total_tokens=usage["completion_tokens"])), "chat_format", "an_answer_has_openais_format"),
    "counts_one_prompt_for_all": mutant("chat answer", every(usages, lambda usage: usage.update(prompt_tokens=9, total_tokens=9 + usage["completion_tokens"])), "chat_format", "usage_counts_the_tokens"),
    "counts_one_token_too_few": mutant("chat answer", every(usages, lambda usage: usage.update(completion_tokens=usage["completion_tokens"] - 1, total_tokens=usage["total_tokens"] - 1)), "chat_format", "finish_reason_tells_a_truncated_answer"),
    "counts_more_cached_than_read": mutant("chat answer", every(usages, put(prompt_tokens_details={"cached_tokens": 9999})), "chat_format", "an_answer_has_openais_format"),
    "counts_one_of_n_answers": mutant("chat answer", _repeat_usage, "chat_format", "each_of_n_answers_has_openais_format"),
    "answers_with_logprobs_unasked": mutant("chat answer", every(choices, lambda choice: choice.update(logprobs=choice["logprobs"] or {"content": [], "refusal": None})), "chat_format", "nothing_is_returned_that_was_not_requested"),
    "answers_as_binary": mutant("content type", lambda given: "application/octet-stream" if given == "application/json" else given, "chat_format", "an_answer_has_openais_format"),
    "truncates_after_100_tokens": mutant("chat request", _cap, "chat_format", "an_answer_is_not_truncated_without_max_tokens"),
    "refuses_nulls": mutant("chat request", _null_is_wrong, "chat_format", "null_fields_mean_the_default"),
    "refuses_a_user": mutant("chat request", lambda request: request.update(temperature=-1) if request.get("user") else None, "chat_format", "common_fields_are_accepted"),
    "drops_developer_messages": mutant("chat request", _role("developer", _without), "chat_format", "instructions_are_read[developer]"),
    "refuses_developer_messages": mutant("chat request", _role("developer", _refuse), "chat_format", "instructions_are_read[developer]"),
    "drops_system_messages": mutant("chat request", _role("system", _without), "chat_format", "instructions_are_read[system]"),
    "refuses_names": mutant("chat request", lambda request: request.update(temperature=-1) if "'name': 'ada'" in str(request.get("messages")) else None, "chat_format", "messages_may_have_names"),
    "refuses_its_own_answers": mutant("chat request", lambda request: request.update(temperature=-1) if any("refusal" in turn for turn in request.get("messages") or () if isinstance(turn, dict)) else None, "chat_format", "an_answer_can_be_sent_back"),
    "forgets_its_own_answers": mutant("chat request", lambda request: request.update(messages=[turn for turn in request["messages"] if turn["role"] != "assistant"]) if isinstance(request.get("messages"), list) else None, "chat_format", "an_answer_can_be_sent_back"),
    "answers_in_ascii": mutant("chat answer", every(messages, lambda message: message.update(content=(message["content"] or "").encode("ascii", "replace").decode())), "chat_format", "foreign_text_is_generated"),
    "answers_with_comments_in_json": mutant("chat answer", put(created=float("nan")), "chat_format", "an_answer_has_openais_format"),
    "answers_with_a_trailing_role": mutant("chat answer", every(messages, lambda message: message.update(content="assistant: " + message["content"], role="Assistant")), "chat_format", "an_answer_has_openais_format"),
    "sends_null_choices": mutant("chat answer", put(choices=None), "chat_format", "an_answer_has_openais_format"),
    "sends_no_choices": mutant("chat answer", put(choices=[]), "chat_format", "an_answer_has_openais_format"),
    "wraps_answers_in_data": mutant("chat answer", lambda document: document.update(data={"choices": document.pop("choices")}), "chat_format", "an_answer_has_openais_format"),
    "reports_errors_in_answers": mutant("chat answer", lambda document: document.update(error={"message": "overloaded"}, choices=[]), "chat_format", "an_answer_has_openais_format"),
    # Text completions
    "completes_as_chat": mutant("completions answer", put(object="chat.completion"), "completions", "completions_answers"),
    "completes_without_id": mutant("completions answer", drop("id"), "completions", "a_text_completion_has_openais_format"),
    "completes_without_created": mutant("completions answer", drop("created"), "completions", "a_text_completion_has_openais_format"),
    "completes_with_a_message": mutant("completions answer", every(choices, lambda choice: choice.update(message={"content": choice.pop("text")})), "completions", "a_text_completion_has_openais_format"),
    "completes_with_a_null_finish_reason": mutant("completions answer", every(choices, put(finish_reason=None)), "completions", "completions_answers"),
    "calls_every_end_of_a_text_a_stop": mutant("completions answer", every(choices, put(finish_reason="stop")), "completions", "a_text_completion_has_openais_format"),
    "completes_without_usage": mutant("completions answer", drop("usage"), "completions", "a_prompt_may_be_tokens"),
    "mixes_up_prompts": mutant("completions answer", _swap, "completions", "prompts_are_answered_in_order"),
    "counts_the_first_prompt": mutant("completions answer", lambda document: document["usage"].update(prompt_tokens=4, total_tokens=4 + document["usage"]["completion_tokens"]) if len(document["choices"]) > 1 else None, "completions", "prompts_are_answered_in_order"),
    "reads_tokens_as_text": mutant("completions request", lambda request: request.update(prompt=str(request["prompt"]).replace(" ", "")) if isinstance(request.get("prompt"), list) and isinstance(request["prompt"][0], int) else None, "completions", "a_prompt_may_be_tokens"),
    "reads_tokens_as_prompts": mutant("completions request", lambda request: request.update(prompt=[str(token) for token in request["prompt"]]) if isinstance(request.get("prompt"), list) and isinstance(request["prompt"][0], int) else None, "completions", "a_prompt_may_be_tokens"),
    # Log probabilities and sampling
    "ignores_stop_in_chat": mutant("chat request", drop("stop"), "sampling", "stop_ends_a_chat_answer[text]"),
    "ignores_a_list_of_stops": mutant("chat request", lambda request: request.pop("stop") if isinstance(request.get("stop"), list) else None, "sampling", "stop_ends_a_chat_answer[list]"),
    "stops_at_the_first_of_the_list_only": mutant("chat request", lambda request: request.update(stop=request["stop"][:1]) if isinstance(request.get("stop"), list) else None, "sampling", "stop_ends_a_chat_answer[list]"),
    "calls_a_stop_a_length": mutant("chat answer", every(choices, put(finish_reason="length")), "sampling", "stop_ends_a_chat_answer[text]"),
    "returns_logprobs_without_bytes": mutant("chat answer", every(_logprobs, drop("bytes")), "sampling", "log_probabilities_are_complete"),
    "returns_wrong_bytes": mutant("chat answer", every(_logprobs, put(bytes=[0])), "sampling", "log_probabilities_are_complete"),
    "returns_logprobs_of_half_the_tokens": mutant("chat answer", every(choices, lambda choice: choice["logprobs"] and choice["logprobs"].update(content=choice["logprobs"]["content"][::2])), "sampling", "log_probabilities_are_complete"),
    "returns_chat_logprobs_as_text_completions": mutant("chat answer", every(choices, lambda choice: choice["logprobs"] and choice.update(logprobs={"tokens": [], "token_logprobs": [], "top_logprobs": []})), "sampling", "log_probabilities_without_alternatives"),
    "returns_top_logprobs_as_an_object": mutant("chat answer", every(_logprobs, lambda token: token.update(top_logprobs={other["token"]: other["logprob"] for other in token["top_logprobs"]})), "sampling", "log_probabilities_without_alternatives"),
    "returns_one_alternative_fewer": mutant("chat answer", every(_logprobs, lambda token: token["top_logprobs"] and token["top_logprobs"].pop()), "sampling", "logprobs_of_chat"),
    "returns_probabilities": mutant("chat answer", every(_logprobs, put(logprob=0.6)), "sampling", "log_probabilities_are_complete"),
    "returns_alternatives_unasked": mutant("chat answer", every(_logprobs, lambda token: token["top_logprobs"] or token.update(top_logprobs=[{"token": "a", "logprob": -1.0, "bytes": [97]}])), "sampling", "log_probabilities_without_alternatives"),
    "returns_token_ids_as_tokens": mutant("chat answer", every(_logprobs, put(token="token_id:7", bytes=None)), "sampling", "log_probabilities_are_complete"),
    "returns_text_logprobs_as_chat": mutant("completions answer", every(choices, lambda choice: choice["logprobs"] and choice.update(logprobs={"content": []})), "sampling", "logprobs_of_completions"),
    "returns_no_offsets": mutant("completions answer", every(_text_logprobs, put(text_offset=[])), "sampling", "log_probabilities_of_completions_are_complete"),
    "returns_equal_offsets": mutant("completions answer", every(_text_logprobs, lambda logprobs: logprobs.update(text_offset=[0] * len(logprobs["tokens"]))), "sampling", "log_probabilities_of_completions_are_complete"),
    "returns_no_text_alternatives": mutant("completions answer", every(_text_logprobs, put(top_logprobs=None)), "sampling", "log_probabilities_of_completions_are_complete"),
    "ignores_logit_bias": mutant("chat request", drop("logit_bias"), "sampling", "logit_bias_changes_the_answer"),
    "ignores_top_p": mutant("chat request", drop("top_p"), "sampling", "top_p_narrows_the_choice"),
    "ignores_max_completion_tokens": mutant("chat request", drop("max_completion_tokens"), "sampling", "either_name_bounds_the_answer[max_completion_tokens]"),
    "returns_infinite_logprobs": mutant("chat answer", every(_logprobs, put(logprob=float("-inf"))), "sampling", "log_probabilities_without_alternatives"),
    "merges_alternatives_of_the_same_text": mutant("chat answer", every(_logprobs, lambda token: token.update(top_logprobs=token["top_logprobs"][:1] * len(token["top_logprobs"]))), "sampling", "log_probabilities_are_complete"),
    "returns_logprobs_of_the_prompt_too": mutant("chat answer", every(choices, lambda choice: choice["logprobs"] and choice["logprobs"]["content"].insert(0, choice["logprobs"]["content"][0])), "sampling", "log_probabilities_are_complete"),
    # Models
    "lists_models_without_a_list": mutant("models", put(object="models"), "service", "models_have_openais_format"),
    "lists_models_without_created": mutant("models", lambda listed: [card.pop("created") for card in listed["data"]], "service", "models_have_openais_format"),
    "lists_models_without_an_owner": mutant("models", lambda listed: [card.pop("owned_by") for card in listed["data"]], "service", "models_have_openais_format"),
    "lists_models_twice": mutant("models", lambda listed: listed.update(data=listed["data"] * 2), "service", "models_have_openais_format"),
    "dates_models_in_text": mutant("models", lambda listed: [card.update(created="2026") for card in listed["data"]], "service", "models_have_openais_format"),
    "lists_models_under_name": mutant("models", lambda listed: [card.update(name=card["id"]) or card.pop("id") for card in listed["data"]], "service", "models_lists_the_model"),
    # Errors
    "refuses_with_a_flat_error": mutant("error", _flat, "refusals", "bad_parameter_is_400[temperature]"),
    "refuses_with_a_text": mutant("error", lambda reply: reply.update(body={"error": reply["body"]["error"]["message"]}), "refusals", "bad_parameter_is_400[temperature]"),
    "refuses_with_a_detail": mutant("error", lambda reply: reply.update(body={"detail": reply["body"]["error"]["message"]}), "refusals", "bad_parameter_is_400[temperature]"),
    "refuses_without_a_message": mutant("error", _error(put(message="")), "refusals", "bad_parameter_is_400[temperature]"),
    "refuses_without_a_type": mutant("error", _error(put(type=None)), "refusals", "bad_parameter_is_400[temperature]"),
    "refuses_without_a_param": mutant("error", _error(drop("param")), "refusals", "bad_parameter_is_400[temperature]"),
    "refuses_without_a_code": mutant("error", _error(drop("code")), "refusals", "bad_parameter_is_400[temperature]"),
    "refuses_with_422": mutant("error", _status(400, 422), "refusals", "bad_parameter_is_400[temperature]"),
    "refuses_with_500": mutant("error", _status(400, 500), "refusals", "bad_parameter_is_400[temperature]"),
    "refuses_with_200": mutant("error", _status(400, 200), "refusals", "bad_parameter_is_400[temperature]"),
    "refuses_unknown_models_with_400": mutant("error", _status(404, 400), "refusals", "wrong_model_is_404"),
    "does_not_name_the_unknown_model": mutant("error", _error(put(message="not found")), "refusals", "wrong_model_is_404_in_openais_format"),
    "refuses_in_html": mutant("content type", lambda given: "text/html" if given == "application/json" else given, "refusals", "bad_parameter_is_400[temperature]"),
    "truncates_frequency_penalties": mutant("chat request", drop("frequency_penalty"), "refusals", "bad_parameter_is_400[frequency_penalty]"),
    "accepts_alternatives_without_logprobs": mutant("chat request", lambda request: request.pop("top_logprobs", None) if not request.get("logprobs") else None, "refusals", "bad_parameter_is_400[top_logprobs]"),
    "accepts_stream_options_without_a_stream": mutant("chat request", lambda request: request.pop("stream_options", None) if not request.get("stream") else None, "refusals", "bad_parameter_is_400[stream_options]"),
    "accepts_no_messages": mutant("chat request", lambda request: request.update(messages=[{"role": "user", "content": ""}]) if request.get("messages") == [] else None, "refusals", "no_messages_are_400"),
    "accepts_a_limit_of_0": mutant("chat request", lambda request: request.pop("max_completion_tokens") if request.get("max_completion_tokens") == 0 else None, "refusals", "bad_parameter_is_400[max_completion_tokens]"),
    "completes_whatever_the_temperature": mutant("completions request", drop("temperature"), "refusals", "other_apis_refuse_in_the_same_way[/v1/completions]"),
    "completes_as_any_model": mutant("completions request", put(model=MODEL), "refusals", "other_apis_refuse_in_the_same_way[/v1/completions]"),
    "responds_whatever_the_temperature": mutant("responses request", drop("temperature"), "refusals", "other_apis_refuse_in_the_same_way[/v1/responses]"),
    "responds_as_any_model": mutant("responses request", put(model=MODEL), "refusals", "other_apis_refuse_in_the_same_way[/v1/responses]"),
    # Embeddings
    "embeds_without_a_list": mutant("embeddings answer", put(object="embeddings"), "embeddings", "embeddings_have_openais_format"),
    "embeds_as_another_model": mutant("embeddings answer", put(model="other/model"), "embeddings", "embeddings_have_openais_format"),
    "embeds_without_index": mutant("embeddings answer", lambda document: [each.pop("index") for each in document["data"]], "embeddings", "embeddings_have_openais_format"),
    "embeds_every_text_as_the_first": mutant("embeddings answer", lambda document: [each.update(index=0) for each in document["data"]], "embeddings", "embeddings_have_openais_format"),
    "embeds_in_reverse": mutant("embeddings answer", lambda document: [each.update(index=index) for index, each in enumerate(document["data"][::-1])] and document["data"].reverse(), "embeddings", "embeddings_are_in_the_order_of_the_texts"),
    "mixes_up_vectors": mutant("embeddings answer", lambda document: document.update(data=[first | {"embedding": last["embedding"]} for first, last in zip(document["data"], document["data"][::-1], strict=True)]), "embeddings", "embeddings_are_in_the_order_of_the_texts"),
    "embeds_only_the_first_text": mutant("embeddings request", lambda request: request.update(input=request["input"][:1]) if isinstance(request["input"], list) and request["input"] else None, "embeddings", "embeddings_count_their_tokens"),
    "embeds_every_text_alike": mutant("embeddings answer", _vectors(lambda vector: [1.0] * len(vector)), "embeddings", "embeddings_are_in_the_order_of_the_texts"),
    "embeds_as_zeros": mutant("embeddings answer", _vectors(lambda vector: [0.0] * len(vector)), "embeddings", "embeddings_are_in_the_order_of_the_texts"),
    "embeds_without_usage": mutant("embeddings answer", drop("usage"), "embeddings", "embeddings_count_their_tokens"),
    "counts_embedded_tokens_twice": mutant("embeddings answer", lambda document: document["usage"].update(total_tokens=2 * document["usage"]["total_tokens"]), "embeddings", "embeddings_count_their_tokens"),
    "counts_the_first_embedded_text": mutant("embeddings answer", lambda document: document["usage"].update(prompt_tokens=5, total_tokens=5), "embeddings", "embeddings_count_their_tokens"),
    "ignores_base64": mutant("embeddings request", lambda request: request.pop("encoding_format") if request.get("encoding_format") == "base64" else None, "embeddings", "base64_embeddings_are_the_same_floats"),
    "encodes_in_big_endian": mutant("embeddings answer", _encoded(_pack(">{}f")), "embeddings", "the_sdk_decodes_embeddings"),
    "encodes_doubles": mutant("embeddings answer", _encoded(_pack("<{}d")), "embeddings", "the_sdk_decodes_embeddings"),
    "encodes_half_floats": mutant("embeddings answer", _encoded(_pack("<{}e")), "embeddings", "the_sdk_decodes_embeddings"),
    "encodes_text_of_floats": mutant("embeddings answer", _encoded(lambda floats: base64.b64encode(str(floats).encode()).decode()), "embeddings", "the_sdk_decodes_embeddings"),
    "always_encodes": mutant("embeddings request", put(encoding_format="base64"), "embeddings", "embeddings_have_openais_format"),
    "embeds_nothing": mutant("embeddings request", lambda request: request.update(input="x") if not request["input"] else None, "embeddings", "wrong_embeddings_requests_are_400"),
    "knows_any_encoding": mutant("embeddings request", lambda request: request.update(encoding_format="float") if request.get("encoding_format") == "roman" else None, "embeddings", "wrong_embeddings_requests_are_400"),
    "ignores_dimensions": mutant("embeddings request", drop("dimensions"), "embeddings", "dimensions_are_not_ignored"),
    "embeds_tokens_as_one_text": mutant("embeddings request", lambda request: request.update(input=str(request["input"])) if isinstance(request["input"], list) and request["input"] and isinstance(request["input"][0], list) else None, "embeddings", "embeddings_of_tokens"),
    "refuses_tokens_to_embed": mutant("embeddings request", lambda request: request.update(input=[]) if isinstance(request["input"], list) and request["input"] and isinstance(request["input"][0], list) else None, "embeddings", "embeddings_of_tokens"),
}
# fmt: on
