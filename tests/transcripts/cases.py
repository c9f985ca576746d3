"""The requests whose answers are recorded: one entry per transcript, grouped by the server they need."""

from dataclasses import dataclass, field
from typing import Any

TINY, EMBED = "tiny", "tiny-embed"
API_KEY = "a-key-for-recording"
GREETING = [{"role": "user", "content": "Say hi."}]
QUESTION = [{"role": "user", "content": "What is the weather in Oslo?"}]
LONG = [{"role": "user", "content": "word " * 2000}]
USAGE = {"include_usage": True}
CONTINUOUS = {"include_usage": True, "continuous_usage_stats": True}
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TOOLS = [{"type": "function", "function": WEATHER | {"strict": True}}]
LENIENT_TOOLS = [{"type": "function", "function": WEATHER}]
NAMED_TOOL = {"type": "function", "function": {"name": "weather"}}
WRITTEN_CALL = {
    "choice": ['Let me see. <tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'],
}


@dataclass(frozen=True, slots=True)
class Case:
    """One request: `body` is sent as JSON, a `str` or `bytes` body exactly as it stands."""

    name: str
    path: str
    body: Any = None
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def chat(name: str, **fields: Any) -> Case:
    """A chat completion of few greedy tokens, unless `fields` say otherwise."""
    body = {"model": TINY, "messages": GREETING, "max_tokens": 6, "temperature": 0} | fields
    return Case(name, "/v1/chat/completions", body)


def completion(name: str, **fields: Any) -> Case:
    """A completion of few greedy tokens, unless `fields` say otherwise."""
    body = {"model": TINY, "prompt": "def main", "max_tokens": 4, "temperature": 0} | fields
    return Case(name, "/v1/completions", body)


def without(case: Case, *names: str) -> Case:
    """The same case with fields of its body left away."""
    body = {name: value for name, value in case.body.items() if name not in names}
    return Case(case.name, case.path, body, case.method, case.headers)


CHAT = [
    chat("chat_plain"),
    chat("chat_plain_n2", n=2, temperature=1, seed=1),
    chat("chat_plain_logprobs", logprobs=True, top_logprobs=2, max_tokens=2),
    chat("chat_plain_json_schema", max_tokens=80, response_format={
        "type": "json_schema", "json_schema": {"name": "city", "schema": WEATHER["parameters"]},
    }),
    chat("chat_max_completion_tokens", max_completion_tokens=3, max_tokens=6),
    chat("chat_max_tokens_over_context", messages=LONG, max_tokens=2048),
    without(chat("chat_default_length", messages=LONG), "max_tokens"),
    chat("chat_stream", stream=True),
    chat("chat_stream_usage", stream=True, stream_options=USAGE),
    chat("chat_stream_continuous_usage", stream=True, stream_options=CONTINUOUS),
    chat("chat_stream_n2_continuous_usage", stream=True, stream_options=CONTINUOUS, n=2, temperature=1, seed=1),
    chat("chat_stream_logprobs", stream=True, stream_options=USAGE, logprobs=True, top_logprobs=2, max_tokens=3),
    chat("chat_stream_stop", stream=True, stream_options=CONTINUOUS, max_tokens=40, temperature=1, seed=7, stop=["e"]),
    chat("chat_stream_split_characters", stream=True, stream_options=CONTINUOUS, max_tokens=40,
         structured_outputs={"choice": ["Grüße: 5 €, 漢字, 😀\n\tEnde"]}),
]  # fmt: skip
# The seeds are ones with which the random model soon writes a complete call instead of white space.
NAMED_CALL = {"messages": QUESTION, "tools": TOOLS, "tool_choice": NAMED_TOOL, "max_tokens": 100,
              "temperature": 1, "seed": 84}  # fmt: skip
REQUIRED_CALL = NAMED_CALL | {"tool_choice": "required", "seed": 23}
AUTO_CALL = {"messages": QUESTION, "tools": LENIENT_TOOLS, "tool_choice": "auto", "max_tokens": 100,
             "structured_outputs": WRITTEN_CALL}  # fmt: skip
TOOL_CALLS = [
    chat("tool_named_plain", **NAMED_CALL),
    chat("tool_named_stream_continuous_usage", **NAMED_CALL, stream=True, stream_options=CONTINUOUS),
    chat("tool_named_plain_cut", **NAMED_CALL | {"max_tokens": 40}),
    chat("tool_named_stream_cut", **NAMED_CALL | {"max_tokens": 40}, stream=True, stream_options=CONTINUOUS),
    chat("tool_required_plain", **REQUIRED_CALL),
    chat("tool_required_stream_continuous_usage", **REQUIRED_CALL, stream=True, stream_options=CONTINUOUS),
    chat("tool_auto_plain", **AUTO_CALL),
    chat("tool_auto_stream", **AUTO_CALL, stream=True),
    chat("tool_auto_stream_continuous_usage", **AUTO_CALL, stream=True, stream_options=CONTINUOUS),
    chat("tool_auto_not_called", messages=QUESTION, tools=TOOLS, tool_choice="auto"),
]
COMPLETIONS = [
    completion("completion_plain"),
    without(completion("completion_default_length"), "max_tokens"),
    completion("completion_echo", echo=True),
    completion("completion_echo_nothing_generated", echo=True, max_tokens=0),
    completion("completion_prompts", prompt=["def main", "a longer prompt of words"]),
    completion("completion_tokens", prompt=[300, 301, 302]),
    completion("completion_max_tokens_over_context", prompt="word " * 2000, max_tokens=2048),
    completion("completion_logprobs", logprobs=2, max_tokens=2),
    completion("completion_stream", stream=True),
    completion("completion_stream_usage", stream=True, stream_options=USAGE),
    completion("completion_stream_prompts_n2_continuous_usage", prompt=["def main", "a longer prompt of words"],
               n=2, temperature=1, seed=1, stream=True, stream_options=CONTINUOUS),
]  # fmt: skip
RESPONSES = [
    Case("responses_plain", "/v1/responses", {
        "model": TINY, "input": "Say hi.", "max_output_tokens": 6, "temperature": 0, "store": False,
    }),
    Case("responses_stream", "/v1/responses", {
        "model": TINY, "input": "Say hi.", "max_output_tokens": 6, "temperature": 0, "store": False, "stream": True,
    }),
    Case("responses_default_length", "/v1/responses", {
        "model": TINY, "input": "word " * 2000, "temperature": 0, "store": False,
    }),
    Case("responses_tool_stream", "/v1/responses", {
        "model": TINY, "input": QUESTION, "max_output_tokens": 100, "temperature": 0, "store": False, "stream": True,
        "tools": [{"type": "function"} | WEATHER], "tool_choice": "auto", "structured_outputs": WRITTEN_CALL,
    }),
    Case("responses_error_unknown_model", "/v1/responses", {"model": "nobody", "input": "Say hi."}),
    Case("responses_error_wrong_type", "/v1/responses", {"model": TINY, "input": 5}),
]  # fmt: skip
MESSAGES = [
    Case("messages_plain", "/v1/messages", {"model": TINY, "messages": GREETING, "max_tokens": 6, "temperature": 0}),
    Case("messages_stream", "/v1/messages", {
        "model": TINY, "messages": GREETING, "max_tokens": 6, "temperature": 0, "stream": True,
    }),
    Case("messages_tool_stream", "/v1/messages", {
        "model": TINY, "messages": QUESTION, "max_tokens": 60, "temperature": 0, "stream": True,
        "tools": [{"name": "weather", "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}],
        "tool_choice": {"type": "tool", "name": "weather"},
    }),
    Case("messages_count_tokens", "/v1/messages/count_tokens", {"model": TINY, "messages": GREETING}),
    Case("messages_error_unknown_model", "/v1/messages", {"model": "nobody", "messages": GREETING, "max_tokens": 6}),
    Case("messages_error_without_max_tokens", "/v1/messages", {"model": TINY, "messages": GREETING}),
    Case("messages_error_too_long", "/v1/messages", {
        "model": TINY, "messages": [{"role": "user", "content": "word " * 2100}], "max_tokens": 6,
    }),
]  # fmt: skip
TOKENS = [
    Case("tokenize_messages", "/tokenize", {"model": TINY, "messages": GREETING}),
    Case("tokenize_messages_with_tools", "/tokenize", {"model": TINY, "messages": QUESTION, "tools": TOOLS}),
    Case("tokenize_prompt", "/tokenize", {"model": TINY, "prompt": "def main"}),
    Case("tokenize_prompt_strings", "/tokenize", {"model": TINY, "prompt": "def main", "return_token_strs": True}),
    Case("detokenize", "/detokenize", {"model": TINY, "tokens": [300, 301, 302]}),
]
OPERATIONS = [
    Case("models", "/v1/models", method="GET"),
    Case("version", "/version", method="GET"),
    Case("health", "/health", method="GET"),
    Case("load", "/load", method="GET"),
]
ERRORS = [
    chat("error_unknown_model", model="nobody"),
    without(chat("error_without_messages"), "messages"),
    without(chat("without_model"), "model"),
    chat("error_prompt_too_long", messages=[{"role": "user", "content": "word " * 2100}]),
    chat("error_prompt_too_long_stream", messages=[{"role": "user", "content": "word " * 2100}], stream=True),
    chat("error_negative_max_tokens", max_tokens=-1),
    chat("error_zero_max_tokens", max_tokens=0),
    chat("error_text_max_tokens", max_tokens="many"),
    chat("error_wrong_type", messages="Say hi."),
    chat("error_zero_n", n=0),
    chat("error_greedy_n2", n=2),
    chat("error_temperature", temperature=-1),
    chat("error_stream_options_without_stream", stream_options=USAGE),
    chat("unknown_field", no_such_field=1),
    Case("error_malformed_json", "/v1/chat/completions", '{"model": "tiny", "messages": ['),
    Case("error_empty_body", "/v1/chat/completions", ""),
    Case("error_invalid_utf8", "/v1/chat/completions", b'{"model": "tiny\xff"}'),
    Case("error_content_type", "/v1/chat/completions", '{"model": "tiny"}', headers={"content-type": "text/plain"}),
    Case("error_wrong_method", "/v1/chat/completions", method="GET"),
    Case("error_unknown_path", "/v1/no/such/path", {}),
    completion("error_completion_prompt_too_long", prompt="word " * 2100),
    completion("error_completion_wrong_type", prompt={"text": "def main"}),
]

WITH_PROMPT_DETAILS = [
    chat("details_chat_plain", messages=[{"role": "user", "content": "Count the words. " * 40}]),
    chat("details_chat_plain_cached", messages=[{"role": "user", "content": "Count the words. " * 40}]),
    chat("details_chat_stream_cached", messages=[{"role": "user", "content": "Count the words. " * 40}],
         stream=True, stream_options=CONTINUOUS),
    completion("details_completion_stream_cached", prompt="Count the words. " * 40, stream=True,
               stream_options=CONTINUOUS),
    Case("details_messages_stream_cached", "/v1/messages", {
        "model": TINY, "messages": [{"role": "user", "content": "Count the words. " * 40}],
        "max_tokens": 6, "temperature": 0, "stream": True,
    }),
]  # fmt: skip
WITH_API_KEY = [
    chat("key_missing"),
    Case("key_wrong", "/v1/models", method="GET", headers={"authorization": "Bearer another"}),
    Case("key_as_x_api_key", "/v1/models", method="GET", headers={"x-api-key": API_KEY}),
    Case("key_right", "/v1/models", method="GET", headers={"authorization": f"Bearer {API_KEY}"}),
    Case("key_missing_unknown_path", "/v1/no/such/path", {}),
    Case("key_missing_messages", "/v1/messages", {"model": TINY, "messages": GREETING, "max_tokens": 6}),
    Case("key_not_asked_tokenize", "/tokenize", {"model": TINY, "prompt": "def main"}),
    Case("key_not_asked_invocations", "/invocations", {"model": TINY, "prompt": "def main", "max_tokens": 1}),
    Case("key_not_asked_health", "/health", method="GET"),
]
EMBEDDINGS = [
    Case("embeddings_string", "/v1/embeddings", {"model": EMBED, "input": "def main"}),
    Case("embeddings_list", "/v1/embeddings", {"model": EMBED, "input": ["def main", "a longer input of words"]}),
    Case("embeddings_tokens", "/v1/embeddings", {"model": EMBED, "input": [300, 301, 302]}),
    Case("embeddings_token_lists", "/v1/embeddings", {"model": EMBED, "input": [[300, 301], [302]]}),
    Case("embeddings_messages", "/v1/embeddings", {"model": EMBED, "messages": GREETING}),
    Case("embeddings_base64", "/v1/embeddings", {"model": EMBED, "input": "def main", "encoding_format": "base64"}),
    Case("rerank", "/v1/rerank", {"model": EMBED, "query": "main", "documents": ["def main", "return"], "top_n": 1}),
    Case("score", "/v1/score", {"model": EMBED, "text_1": "main", "text_2": ["def main", "return"]}),
    Case("embeddings_error_too_long", "/v1/embeddings", {"model": EMBED, "input": "word " * 2100}),
    Case("embeddings_error_unknown_model", "/v1/embeddings", {"model": "nobody", "input": "def main"}),
    Case("embeddings_error_chat", "/v1/chat/completions", {"model": EMBED, "messages": GREETING}),
    Case("embeddings_models", "/v1/models", method="GET"),
    Case("embeddings_tokenize", "/tokenize", {"model": EMBED, "prompt": "def main"}),
]

ON_TINY = [*CHAT, *TOOL_CALLS, *COMPLETIONS, *RESPONSES, *MESSAGES, *TOKENS, *OPERATIONS, *ERRORS]
DYING = chat("engine_killed_mid_stream", max_tokens=1500, stream=True, stream_options=CONTINUOUS, ignore_eos=True)
AFTER_DEATH = [chat("engine_dead_chat"), Case("engine_dead_health", "/health", method="GET")]
