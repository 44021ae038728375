"""Every fault that the fake server can have, and the conformance tests that catch it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """The tests that fail with a fault: exactly `tests`, in `file`.

    `breaks_much`: the fault breaks nearly everything, so that other tests of the file may fail, too.
    """

    file: str
    tests: frozenset[str]
    breaks_much: bool = False


def _fails(file: str, *tests: str) -> Fault:
    return Fault(f"test_{file}.py", frozenset(f"test_{name}" for name in tests))


def _each(name: str, *ids: str) -> tuple[str, ...]:
    return tuple(f"{name}[{identifier}]" for identifier in ids)


_WRONG_KEYS = _each("wrong_key_is_401", "another", "longer", "short")
_PATHS_WITH_KEYS = ("/chat/completions", "/completions", "/responses", "/embeddings", "/models")
_BAD_PARAMETERS = (
    "temperature", "max_tokens", "messages", "top_p", "n", "stop", "seed", "presence_penalty", "logit_bias",
    "response_format", "stream",
)  # fmt: skip

FAULTS = {
    # The service
    "is_unhealthy": _fails("service", "health"),
    "info_names_another_model": _fails("service", "info_names_the_model"),
    "info_shows_the_key": _fails("service", "info_names_the_model"),
    "lists_another_model": _fails("service", "models_lists_the_model"),
    "knows_no_model_by_name": _fails("service", "a_model_is_found_by_its_name"),
    "finds_any_model": _fails("service", "a_model_is_found_by_its_name"),
    "leaks_metrics": _fails("service", "forbidden_path_is_404[/metrics-GET]", "forbidden_path_stays_hidden[//metrics]"),
    "leaks_tokenizer_info": _fails("service", "forbidden_path_is_404[/tokenizer_info-GET]"),
    "can_be_put_to_sleep": _fails("service", "forbidden_path_is_404[/sleep-POST]"),
    "looks_at_the_end_of_a_path": _fails(
        "service",
        *_each("forbidden_path_stays_hidden", "/v1/../metrics", "//metrics", "/v1/%2e%2e/metrics", "/v1/metrics",
               "/v1/chat/completions/../../../metrics"),
        "forbidden_path_is_404[/metrics-GET]",
    ),
    "answers_any_method": _fails("service", "wrong_method_is_405"),
    "lets_other_sites_in": _fails("service", "no_other_site_is_let_in"),
    "refuses_in_plain_text": Fault(
        "test_service.py", frozenset({"test_forbidden_path_is_404[/docs-GET]"}), breaks_much=True
    ),
    # Keys
    "accepts_any_key": _fails("keys", *_WRONG_KEYS, "keys_are_rotated"),
    "accepts_longer_keys": _fails("keys", "wrong_key_is_401[longer]"),
    "accepts_no_key": _fails("keys", *_each("missing_key_is_401", *_PATHS_WITH_KEYS)),
    "guards_only_chat": _fails("keys", *_each("missing_key_is_401", *_PATHS_WITH_KEYS[1:])),
    "refuses_keys_with_403": _fails(
        "keys", *_WRONG_KEYS, *_each("missing_key_is_401", *_PATHS_WITH_KEYS), "keys_are_rotated"
    ),
    "reads_its_keys_once": _fails("keys", "keys_are_rotated"),
    "keeps_keys_that_were_taken_out": _fails("keys", "keys_are_rotated"),
    "takes_the_last_key_alone": _fails("keys", "keys_are_rotated"),
    # Answers
    "answers_200_with_an_error": Fault("test_completions.py", frozenset({"test_chat_answers"}), breaks_much=True),
    "answers_nothing": Fault("test_completions.py", frozenset({"test_chat_answers"}), breaks_much=True),
    "answers_as_another_model": _fails("completions", "chat_answers", "completions_answers"),
    "counts_wrong": _fails("completions", "chat_answers", "completions_answers"),
    "forgets_the_conversation": _fails("completions", "chat_reads_the_whole_conversation"),
    "reads_the_last_part_alone": _fails("completions", "chat_reads_content_in_parts"),
    "answers_the_first_prompt_alone": _fails("completions", "completions_answers_a_list_of_prompts"),
    "mangles_foreign_text": _fails("completions", "text_comes_back_as_it_went"),
    "ignores_max_tokens": _fails("completions", *_each("max_tokens_is_respected", "1", "7")),
    "hides_how_much_it_says": _fails("completions", *_each("max_tokens_is_respected", "1", "7")),
    "makes_its_own_request_id": _fails("completions", "request_id_is_echoed"),
    "repeats_request_ids": _fails("completions", "request_id_is_made_where_none_is_sent"),
    # Refusals
    "serves_any_model": _fails("refusals", "wrong_model_is_404"),
    "accepts_bad_parameters": _fails(
        "refusals", *_each("bad_parameter_is_400", *_BAD_PARAMETERS), "missing_messages_is_400",
        "a_refused_stream_is_no_stream",
    ),
    "refuses_within_the_stream": _fails("refusals", "a_refused_stream_is_no_stream"),
    "cuts_long_prompts": _fails("refusals", "context_overflow_is_400"),
    "dies_of_long_prompts": _fails("refusals", "context_overflow_is_400"),
    "fails_on_malformed_json": _fails("refusals", "malformed_json_is_400"),
    "refuses_embeddings_as_vllm_does": _fails(
        "refusals", *_each("what_the_model_is_not_for_is_refused", "/v1/embeddings", "/v1/rerank", "/v1/score")
    ),
    # Streams
    "buffers_the_stream": _fails("streaming", "stream_chunks_arrive_as_they_are_made"),
    "drops_done": _fails("streaming", "stream_ends_with_done"),
    "drops_usage": _fails("streaming", "stream_usage_comes_last", "completions_stream"),
    "repeats_usage": _fails("streaming", "stream_usage_comes_last"),
    "completions_stream_without_usage": _fails("streaming", "completions_stream"),
    "reorders_the_stream": _fails("streaming", "stream_says_what_the_whole_answer_says"),
    "loses_part_of_the_stream": _fails("streaming", "stream_says_what_the_whole_answer_says"),
    "drops_the_finish_reason": _fails("streaming", "stream_is_in_order"),
    "changes_ids_within_a_stream": _fails("streaming", "stream_is_in_order"),
    "streams_no_role": _fails("streaming", "stream_is_in_order"),
    "streams_as_json": Fault("test_streaming.py", frozenset({"test_stream_ends_with_done"}), breaks_much=True),
    # Sampling
    "ignores_n": _fails("sampling", "n_answers_come_back", "n_streams_are_told_apart"),
    "says_one_answer_n_times": _fails("sampling", "n_answers_come_back"),
    "streams_every_answer_as_the_first": _fails("sampling", "n_streams_are_told_apart"),
    "ignores_stop": _fails("sampling", "stop_ends_the_answer"),
    "says_the_stop_text": _fails("sampling", "stop_ends_the_answer"),
    "drops_logprobs": _fails("sampling", "logprobs_of_chat", "logprobs_of_completions"),
    "sorts_logprobs_upside_down": _fails("sampling", "logprobs_of_chat"),
    "tells_fewer_logprobs_than_tokens": _fails("sampling", "logprobs_of_completions"),
    "ignores_the_seed": _fails("sampling", "a_seed_repeats_the_answer"),
    "ignores_the_temperature": _fails("sampling", "n_answers_come_back", "temperature_varies_the_answer"),
    "knows_max_tokens_by_its_old_name_alone": _fails("sampling", "either_name_bounds_the_answer[max_completion_tokens]"),
    # Structured output
    "ignores_schemas": _fails(
        "structured", "a_json_schema_is_kept", "a_json_schema_is_kept_in_a_stream"
    ),
    "ignores_schemas_in_streams": _fails("structured", "a_json_schema_is_kept_in_a_stream"),
    "accepts_wrong_schemas": _fails("structured", "a_wrong_schema_is_400"),
    "calls_another_tool": _fails("structured", "a_named_tool_is_called", "a_tool_call_is_streamed"),
    "calls_no_tool_that_must_be": _fails("structured", "a_tool_is_called_where_one_must_be"),
    "streams_half_a_call": _fails("structured", "a_tool_call_is_streamed"),
    "ignores_results_of_tools": _fails("structured", "a_tools_result_is_read"),
    # Pictures
    "drops_images": _fails(
        "vision", "an_image_by_base64_is_read", "images_are_told_apart", "images_stand_where_they_are_put",
        "an_image_by_address_is_read",
    ),
    "does_not_look_at_images": _fails("vision", "images_are_told_apart", "images_stand_where_they_are_put"),
    "mixes_up_images": _fails("vision", "images_stand_where_they_are_put"),
    "fetches_no_images": _fails("vision", "an_image_by_address_is_read"),
    "fails_on_broken_images": _fails("vision", "a_broken_image_is_refused[nonsense]"),
    "dies_of_broken_addresses": Fault(
        "test_vision.py", frozenset({"test_a_broken_image_is_refused[address]"}), breaks_much=True
    ),
    "fetches_internal_addresses": Fault(
        "test_vision.py",
        frozenset({"test_an_internal_address_is_not_fetched[http://169.254.169.254/latest/meta-data/]"}),
        breaks_much=True,
    ),
    "takes_any_number_of_images": _fails("vision", "too_many_images_are_400"),
    "breaks_off_streams_about_images": _fails("vision", "an_image_is_streamed_about"),
    "drops_videos": _fails(
        "vision", "a_video_by_base64_is_read", "videos_are_told_apart", "a_video_by_address_is_read"
    ),
    "does_not_look_at_videos": _fails("vision", "videos_are_told_apart"),
    "fetches_no_videos": _fails("vision", "a_video_by_address_is_read"),
    # /v1/responses
    "counts_responses_wrong": _fails("responses", "a_response_is_made"),
    "ignores_instructions": _fails("responses", "instructions_and_turns_are_read"),
    "reorders_streamed_responses": _fails("responses", "a_response_is_streamed"),
    # Concurrent clients
    "refuses_parallel_requests": _fails("load", "sixteen_at_once", "sixteen_streams_at_once"),
    "reuses_answer_ids": _fails("load", "sixteen_at_once"),
    "mixes_up_answers": _fails("load", "sixteen_at_once"),
    "mixes_up_streams": _fails("load", "sixteen_streams_at_once"),
    "goes_on_without_its_client": _fails("load", "a_client_that_leaves_is_stopped"),
}  # fmt: skip
