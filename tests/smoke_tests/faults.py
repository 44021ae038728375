"""Every fault that the fake server can have, and the conformance tests that catch it."""

from tests.smoke_tests.fault import Fault, each, fails, fails_among_others
from tests.smoke_tests.mutants_answers import ANSWERS
from tests.smoke_tests.mutants_streams import STREAMS
from tests.smoke_tests.mutants_tools import TOOLS

_WRONG_KEYS = each("wrong_key_is_401", "another", "longer", "short")
_PATHS_WITH_KEYS = ("/chat/completions", "/completions", "/responses", "/embeddings", "/models")
_BAD_PARAMETERS = (
    "temperature", "max_tokens", "messages", "top_p", "n", "stop", "seed", "presence_penalty", "logit_bias",
    "response_format", "stream",
)  # fmt: skip

SERVER_FAULTS: dict[str, Fault] = {
    # The service
    "is_unhealthy": fails("service", "health"),
    "info_names_another_model": fails("service", "info_names_the_model"),
    "info_shows_the_key": fails("service", "info_names_the_model"),
    "lists_another_model": fails_among_others("service", "models_lists_the_model"),
    "knows_no_model_by_name": fails_among_others("service", "a_model_is_found_by_its_name"),
    "finds_any_model": fails("service", "a_model_is_found_by_its_name"),
    "leaks_metrics": fails("service", "forbidden_path_is_404[/metrics-GET]", "forbidden_path_stays_hidden[//metrics]"),
    "leaks_tokenizer_info": fails("service", "forbidden_path_is_404[/tokenizer_info-GET]"),
    "can_be_put_to_sleep": fails("service", "forbidden_path_is_404[/sleep-POST]"),
    "looks_at_the_end_of_a_path": fails(
        "service",
        *each("forbidden_path_stays_hidden", "/v1/../metrics", "//metrics", "/v1/%2e%2e/metrics", "/v1/metrics",
               "/v1/chat/completions/../../../metrics"),
        "forbidden_path_is_404[/metrics-GET]",
    ),
    "answers_any_method": fails("service", "wrong_method_is_405"),
    "lets_other_sites_in": fails("service", "no_other_site_is_let_in"),
    "refuses_in_plain_text": Fault(
        "test_service.py", frozenset({"test_forbidden_path_is_404[/docs-GET]"}), breaks_much=True
    ),
    # Keys
    "accepts_any_key": fails("keys", *_WRONG_KEYS, "keys_are_rotated"),
    "accepts_longer_keys": fails("keys", "wrong_key_is_401[longer]"),
    "accepts_no_key": fails("keys", *each("missing_key_is_401", *_PATHS_WITH_KEYS)),
    "guards_only_chat": fails("keys", *each("missing_key_is_401", *_PATHS_WITH_KEYS[1:])),
    "refuses_keys_with_403": fails(
        "keys", *_WRONG_KEYS, *each("missing_key_is_401", *_PATHS_WITH_KEYS), "keys_are_rotated"
    ),
    "reads_its_keys_once": fails("keys", "keys_are_rotated"),
    "keeps_keys_that_were_taken_out": fails("keys", "keys_are_rotated"),
    "takes_the_last_key_alone": fails("keys", "keys_are_rotated"),
    # Answers
    "answers_200_with_an_error": Fault("test_completions.py", frozenset({"test_chat_answers"}), breaks_much=True),
    "answers_nothing": Fault("test_completions.py", frozenset({"test_chat_answers"}), breaks_much=True),
    "answers_as_another_model": fails_among_others("completions", "chat_answers", "completions_answers"),
    "counts_wrong": fails_among_others("completions", "chat_answers", "completions_answers"),
    "forgets_the_conversation": fails("completions", "chat_reads_the_whole_conversation"),
    "reads_the_last_part_alone": fails("completions", "chat_reads_content_in_parts"),
    "answers_the_first_prompt_alone": fails_among_others("completions", "completions_answers_a_list_of_prompts"),
    "mangles_foreign_text": fails("completions", "text_comes_back_as_it_went"),
    "ignores_max_tokens": fails_among_others("completions", *each("max_tokens_is_respected", "1", "7")),
    "hides_how_much_it_says": fails("completions", *each("max_tokens_is_respected", "1", "7")),
    "makes_its_own_request_id": fails("completions", "request_id_is_echoed"),
    "repeats_request_ids": fails("completions", "request_id_is_made_where_none_is_sent"),
    # Refusals
    "serves_any_model": fails_among_others("refusals", "wrong_model_is_404"),
    "accepts_bad_parameters": fails_among_others(
        "refusals", *each("bad_parameter_is_400", *_BAD_PARAMETERS), "missing_messages_is_400",
        "a_refused_stream_is_no_stream",
    ),
    "refuses_within_the_stream": fails_among_others("refusals", "a_refused_stream_is_no_stream"),
    "cuts_long_prompts": fails("refusals", "context_overflow_is_400"),
    "dies_of_long_prompts": fails("refusals", "context_overflow_is_400"),
    "fails_on_malformed_json": fails_among_others("refusals", "malformed_json_is_400[truncated]"),
    "refuses_embeddings_as_vllm_does": fails(
        "refusals", *each("what_the_model_is_not_for_is_refused", "/v1/embeddings", "/v1/rerank", "/v1/score")
    ),
    # Streams
    "buffers_the_stream": fails("streaming", "stream_chunks_arrive_as_they_are_made"),
    "drops_done": fails("streaming", "stream_ends_with_done"),
    "drops_usage": fails("streaming", "stream_usage_comes_last", "completions_stream"),
    "repeats_usage": fails("streaming", "stream_usage_comes_last"),
    "completions_stream_without_usage": fails("streaming", "completions_stream"),
    "reorders_the_stream": fails("streaming", "stream_says_what_the_whole_answer_says"),
    "loses_part_of_the_stream": fails("streaming", "stream_says_what_the_whole_answer_says"),
    "drops_the_finish_reason": fails("streaming", "stream_is_in_order"),
    "changes_ids_within_a_stream": fails("streaming", "stream_is_in_order"),
    "streams_no_role": fails("streaming", "stream_is_in_order"),
    "streams_as_json": Fault("test_streaming.py", frozenset({"test_stream_ends_with_done"}), breaks_much=True),
    # Sampling
    "ignores_n": fails("sampling", "n_answers_come_back", "n_streams_are_told_apart"),
    "says_one_answer_n_times": fails("sampling", "n_answers_come_back"),
    "streams_every_answer_as_the_first": fails("sampling", "n_streams_are_told_apart"),
    "ignores_stop": fails_among_others("sampling", "stop_ends_the_answer"),
    "says_the_stop_text": fails_among_others("sampling", "stop_ends_the_answer"),
    "drops_logprobs": fails_among_others("sampling", "logprobs_of_chat", "logprobs_of_completions"),
    "sorts_logprobs_upside_down": fails("sampling", "logprobs_of_chat"),
    "tells_fewer_logprobs_than_tokens": fails_among_others("sampling", "logprobs_of_completions"),
    "ignores_the_seed": fails("sampling", "a_seed_repeats_the_answer"),
    "ignores_the_temperature": fails("sampling", "n_answers_come_back", "temperature_varies_the_answer"),
    "knows_max_tokens_by_its_old_name_alone": fails("sampling", "either_name_bounds_the_answer[max_completion_tokens]"),
    # Structured output
    "ignores_schemas": fails_among_others(
        "structured", "a_json_schema_is_kept", "a_json_schema_is_kept_in_a_stream"
    ),
    "ignores_schemas_in_streams": fails_among_others("structured", "a_json_schema_is_kept_in_a_stream"),
    "accepts_wrong_schemas": fails("structured", "a_wrong_schema_is_400"),
    "calls_another_tool": fails_among_others("tools", "a_named_tool_is_called", "a_tool_call_is_streamed"),
    "calls_no_tool_that_must_be": fails_among_others("tools", "a_tool_is_called_where_one_must_be"),
    "streams_half_a_call": fails_among_others("tools", "a_tool_call_is_streamed"),
    "ignores_results_of_tools": fails("tools", "a_tools_result_is_read"),
    # Pictures
    "drops_images": fails(
        "vision", "an_image_by_base64_is_read", "images_are_told_apart", "images_stand_where_they_are_put",
        "an_image_by_address_is_read",
    ),
    "does_not_look_at_images": fails("vision", "images_are_told_apart", "images_stand_where_they_are_put"),
    "mixes_up_images": fails("vision", "images_stand_where_they_are_put"),
    "fetches_no_images": fails("vision", "an_image_by_address_is_read"),
    "fails_on_broken_images": fails("vision", "a_broken_image_is_refused[nonsense]"),
    "dies_of_broken_addresses": Fault(
        "test_vision.py", frozenset({"test_a_broken_image_is_refused[address]"}), breaks_much=True
    ),
    "fetches_internal_addresses": Fault(
        "test_vision.py",
        frozenset({"test_an_internal_address_is_not_fetched[http://169.254.169.254/latest/meta-data/]"}),
        breaks_much=True,
    ),
    "takes_any_number_of_images": fails("vision", "too_many_images_are_400"),
    "breaks_off_streams_about_images": fails("vision", "an_image_is_streamed_about"),
    "drops_videos": fails(
        "vision", "a_video_by_base64_is_read", "videos_are_told_apart", "a_video_by_address_is_read"
    ),
    "does_not_look_at_videos": fails("vision", "videos_are_told_apart"),
    "fetches_no_videos": fails("vision", "a_video_by_address_is_read"),
    # /v1/responses
    "counts_responses_wrong": fails_among_others("responses", "a_response_is_made"),
    "ignores_instructions": fails_among_others("responses", "instructions_and_turns_are_read"),
    "reorders_streamed_responses": fails_among_others("responses", "a_response_is_streamed"),
    # Concurrent clients
    "refuses_parallel_requests": fails("load", "sixteen_at_once", "sixteen_streams_at_once"),
    "reuses_answer_ids": fails("load", "sixteen_at_once"),
    "mixes_up_answers": fails("load", "sixteen_at_once"),
    "mixes_up_streams": fails("load", "sixteen_streams_at_once"),
    "goes_on_without_its_client": fails("load", "a_client_that_leaves_is_stopped"),
}  # fmt: skip

FAULTS = SERVER_FAULTS | ANSWERS | STREAMS | TOOLS
assert len(FAULTS) == sum(map(len, (SERVER_FAULTS, ANSWERS, STREAMS, TOOLS))), "two faults share a name"
