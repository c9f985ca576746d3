"""The requests whose answers are recorded, grouped by the server that they need."""

from dataclasses import dataclass, field
from typing import Any

TINY, EMBED = "tiny", "tiny-embed"
API_KEY = "a-key-for-recording"


@dataclass(frozen=True, slots=True)
class Case:
    """One request: `body` is sent as JSON, a `str` or `bytes` body exactly as it stands."""

    name: str
    path: str
    body: Any = None
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def said(text: str) -> list[dict[str, str]]:
    """A conversation of one user message."""
    return [{"role": "user", "content": text}]


def chat(name: str, **fields: Any) -> Case:
    """A chat completion of few greedy tokens, unless `fields` differ; None leaves one out."""
    body = {"model": TINY, "messages": said("Say hi."), "max_tokens": 6, "temperature": 0}
    return Case(name, "/v1/chat/completions", present(body | fields))


def completion(name: str, **fields: Any) -> Case:
    """A completion, likewise."""
    body = {"model": TINY, "prompt": "def main", "max_tokens": 4, "temperature": 0}
    return Case(name, "/v1/completions", present(body | fields))


def response(name: str, **fields: Any) -> Case:
    """A response that is not stored, likewise."""
    body = {"model": TINY, "input": "Say hi.", "max_output_tokens": 6, "temperature": 0}
    return Case(name, "/v1/responses", present(body | {"store": False} | fields))


def message(name: str, **fields: Any) -> Case:
    """A message of the Anthropic protocol, likewise."""
    body = {"model": TINY, "messages": said("Say hi."), "max_tokens": 6, "temperature": 0}
    return Case(name, "/v1/messages", present(body | fields))


def embedding(name: str, **fields: Any) -> Case:
    """An embedding, likewise."""
    return Case(name, "/v1/embeddings", present({"model": EMBED, "input": "def main"} | fields))


def tokenize(name: str, **fields: Any) -> Case:
    """A tokenization of what `fields` give."""
    return Case(name, "/tokenize", {"model": TINY} | fields)


def get(name: str, path: str, **headers: str) -> Case:
    """A request without a body."""
    return Case(name, path, method="GET", headers=headers)


def present(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


# "the" is one token of the tiny model, so this leaves about 130 of its 2048 for the answer.
NEARLY_FULL = "the " * 1900
TOO_LONG = "the " * 2100
SAID_BEFORE = "Count the words. " * 40

STREAM = {"stream": True}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
CONTINUOUS = {
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
}
SAMPLED = {"temperature": 1, "seed": 1}
LOGPROBS = {"logprobs": True, "top_logprobs": 2, "max_tokens": 3}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
CITY_FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
SPLIT_CHARACTERS = {"choice": ["Grüße: 5 €, 漢字, 😀\n\tEnde"]}

QUESTION = said("What is the weather in Oslo?")
WEATHER = {"name": "weather", "description": "The weather of a city.", "parameters": CITY}
LENIENT_TOOLS = [{"type": "function", "function": WEATHER}]
STRICT_TOOLS = [{"type": "function", "function": WEATHER | {"strict": True}}]
WRITTEN_CALL = (
    'Let me see. <tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
)
# The seeds are ones with which the random model soon writes a complete call, not white space.
NAMED_CALL = {
    "messages": QUESTION,
    "tools": STRICT_TOOLS,
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "max_tokens": 100,
    "temperature": 1,
    "seed": 84,
}
REQUIRED_CALL = NAMED_CALL | {"tool_choice": "required", "seed": 23}
AUTO_CALL = {
    "messages": QUESTION,
    "tools": LENIENT_TOOLS,
    "tool_choice": "auto",
    "max_tokens": 100,
    "structured_outputs": {"choice": [WRITTEN_CALL]},
}
ANTHROPIC_CALL = {
    "messages": QUESTION,
    "tools": [{"name": "weather", "input_schema": CITY}],
    "tool_choice": {"type": "tool", "name": "weather"},
    "max_tokens": 60,
}

CHAT = [
    chat("chat_plain"),
    chat("chat_plain_n2", n=2, **SAMPLED),
    chat("chat_plain_logprobs", **LOGPROBS),
    chat("chat_plain_json_schema", max_tokens=200, response_format=CITY_FORMAT),
    chat("chat_default_length", messages=said(NEARLY_FULL), max_tokens=None),
    chat("chat_max_tokens_over_context", messages=said(NEARLY_FULL), max_tokens=2048),
    chat("chat_max_completion_tokens", max_completion_tokens=3),
    chat("chat_without_model", model=None),
    chat("chat_unknown_field", no_such_field=1),
    chat("chat_priority", priority=1),
    chat("chat_stream_interval", stream_interval=1000, max_tokens=40, **CONTINUOUS),
    chat("chat_stream", **STREAM),
    chat("chat_stream_usage", **USAGE),
    chat("chat_stream_continuous_usage", **CONTINUOUS),
    chat("chat_stream_n2_continuous_usage", n=2, **SAMPLED, **CONTINUOUS),
    chat("chat_stream_logprobs", **LOGPROBS, **USAGE),
    chat("chat_stream_stop", stop=["e"], max_tokens=40, **SAMPLED, **CONTINUOUS),
    chat(
        "chat_stream_split_characters",
        structured_outputs=SPLIT_CHARACTERS,
        max_tokens=40,
        **CONTINUOUS,
    ),
]
TOOL_CALLS = [
    chat("tool_named_plain", **NAMED_CALL),
    chat("tool_named_stream_continuous_usage", **NAMED_CALL, **CONTINUOUS),
    chat("tool_named_plain_cut", **NAMED_CALL | {"max_tokens": 40}),
    chat("tool_named_stream_cut", **NAMED_CALL | {"max_tokens": 40}, **CONTINUOUS),
    chat("tool_required_plain", **REQUIRED_CALL),
    chat("tool_required_stream_continuous_usage", **REQUIRED_CALL, **CONTINUOUS),
    chat("tool_auto_plain", **AUTO_CALL),
    chat("tool_auto_stream", **AUTO_CALL, **STREAM),
    chat("tool_auto_stream_continuous_usage", **AUTO_CALL, **CONTINUOUS),
    chat("tool_auto_not_called", messages=QUESTION, tools=STRICT_TOOLS, tool_choice="auto"),
]
TWO_PROMPTS = ["def main", "a longer prompt of words"]
COMPLETIONS = [
    completion("completion_plain"),
    completion("completion_default_length", max_tokens=None),
    completion("completion_echo", echo=True),
    completion("completion_echo_nothing_generated", echo=True, max_tokens=0),
    completion("completion_prompts", prompt=TWO_PROMPTS),
    completion("completion_tokens", prompt=[300, 301, 302]),
    completion("completion_logprobs", logprobs=2, max_tokens=2),
    completion("completion_max_tokens_over_context", prompt=NEARLY_FULL, max_tokens=2048),
    completion("completion_stream", **STREAM),
    completion("completion_stream_usage", **USAGE),
    completion(
        "completion_stream_prompts_n2_continuous_usage",
        prompt=TWO_PROMPTS,
        n=2,
        **SAMPLED,
        **CONTINUOUS,
    ),
]
RESPONSES = [
    response("responses_plain"),
    response("responses_default_length", input=NEARLY_FULL, max_output_tokens=None),
    response("responses_stream", **STREAM),
    response(
        "responses_tool_stream",
        input=QUESTION,
        tools=[{"type": "function"} | WEATHER],
        structured_outputs={"choice": [WRITTEN_CALL]},
        max_output_tokens=100,
        **STREAM,
    ),
    response("responses_error_unknown_model", model="nobody"),
    response("responses_error_wrong_type", input=5),
]
MESSAGES = [
    message("messages_plain"),
    message("messages_stream", **STREAM),
    message("messages_tool_written_wrongly", **ANTHROPIC_CALL),
    message("messages_tool_stream", **ANTHROPIC_CALL, **STREAM),
    Case(
        "messages_count_tokens",
        "/v1/messages/count_tokens",
        {"model": TINY, "messages": said("Say hi.")},
    ),
    message("messages_error_unknown_model", model="nobody"),
    message("messages_error_without_max_tokens", max_tokens=None),
    message("messages_error_too_long", messages=said(TOO_LONG)),
    message("messages_error_too_long_stream", messages=said(TOO_LONG), **STREAM),
]
TOKENS = [
    tokenize("tokenize_messages", messages=said("Say hi.")),
    tokenize("tokenize_messages_with_tools", messages=QUESTION, tools=LENIENT_TOOLS),
    tokenize("tokenize_prompt", prompt="def main"),
    tokenize("tokenize_prompt_strings", prompt="def main", return_token_strs=True),
    tokenize("tokenize_error_unknown_model", prompt="def main", model="nobody"),
    Case("detokenize", "/detokenize", {"model": TINY, "tokens": [300, 301, 302]}),
]
OPERATIONS = [
    get("models", "/v1/models"),
    get("version", "/version"),
    get("health", "/health"),
    get("load", "/load"),
]
ERRORS = [
    chat("error_unknown_model", model="nobody"),
    chat("error_without_messages", messages=None),
    chat("error_prompt_too_long", messages=said(TOO_LONG)),
    chat("error_prompt_too_long_stream", messages=said(TOO_LONG), **STREAM),
    chat("error_negative_max_tokens", max_tokens=-1),
    chat("error_zero_max_tokens", max_tokens=0),
    chat("error_text_max_tokens", max_tokens="many"),
    chat("error_wrong_type", messages="Say hi."),
    chat("error_zero_n", n=0),
    chat("error_greedy_n2", n=2),
    chat("error_temperature", temperature=-1),
    chat("error_stream_options_without_stream", stream_options={"include_usage": True}),
    Case("error_malformed_json", "/v1/chat/completions", '{"model": "tiny", "messages": ['),
    Case("error_empty_body", "/v1/chat/completions", ""),
    Case("error_invalid_utf8", "/v1/chat/completions", b'{"model": "tiny\xff"}'),
    Case(
        "error_content_type",
        "/v1/chat/completions",
        '{"model": "tiny"}',
        headers={"content-type": "text/plain"},
    ),
    get("error_wrong_method", "/v1/chat/completions"),
    Case("error_unknown_path", "/v1/no/such/path", {}),
    completion("error_completion_prompt_too_long", prompt=TOO_LONG),
    completion("error_completion_wrong_type", prompt={"text": "def main"}),
]

WITH_PROMPT_DETAILS = [
    chat("details_chat_plain", messages=said(SAID_BEFORE)),
    chat("details_chat_plain_cached", messages=said(SAID_BEFORE)),
    chat("details_chat_stream_cached", messages=said(SAID_BEFORE), **CONTINUOUS),
    completion("details_completion_plain", prompt=SAID_BEFORE),
    completion("details_completion_stream_cached", prompt=SAID_BEFORE, **CONTINUOUS),
    response("details_responses_plain_cached", input=SAID_BEFORE),
    message("details_messages_plain_cached", messages=said(SAID_BEFORE)),
    message("details_messages_stream_cached", messages=said(SAID_BEFORE), **STREAM),
]
WITH_API_KEY = [
    chat("key_missing"),
    get("key_wrong", "/v1/models", authorization="Bearer another"),
    get("key_as_x_api_key", "/v1/models", **{"x-api-key": API_KEY}),
    get("key_right", "/v1/models", authorization=f"Bearer {API_KEY}"),
    Case("key_missing_unknown_path", "/v1/no/such/path", {}),
    message("key_missing_messages"),
    tokenize("key_not_asked_tokenize", prompt="def main"),
    Case("key_not_asked_invocations", "/invocations", completion("").body),
    get("key_not_asked_health", "/health"),
]
EMBEDDINGS = [
    embedding("embeddings_string"),
    embedding("embeddings_list", input=TWO_PROMPTS),
    embedding("embeddings_tokens", input=[300, 301, 302]),
    embedding("embeddings_token_lists", input=[[300, 301], [302]]),
    embedding("embeddings_messages", input=None, messages=said("Say hi.")),
    embedding("embeddings_base64", encoding_format="base64"),
    embedding("embeddings_error_too_long", input=TOO_LONG),
    embedding("embeddings_error_unknown_model", model="nobody"),
    chat("embeddings_error_chat", model=EMBED),
    tokenize("embeddings_tokenize", model=EMBED, prompt="def main"),
    get("embeddings_models", "/v1/models"),
    Case("rerank", "/v1/rerank", {"model": EMBED, "query": "main", "documents": TWO_PROMPTS}),
    Case("score", "/v1/score", {"model": EMBED, "text_1": "main", "text_2": TWO_PROMPTS}),
]

ON_TINY = [*CHAT, *TOOL_CALLS, *COMPLETIONS, *RESPONSES, *MESSAGES, *TOKENS, *OPERATIONS, *ERRORS]
LONG = {"max_tokens": 1500, "ignore_eos": True}
DYING = [
    chat("engine_killed_chat", **LONG, **CONTINUOUS),
    completion("engine_killed_completion", **LONG, **CONTINUOUS),
    response("engine_killed_responses", max_output_tokens=1500, ignore_eos=True, **STREAM),
    message("engine_killed_messages", max_tokens=1500, **STREAM),
    chat("engine_killed_chat_plain", **LONG),
]
AFTER_DEATH = [
    chat("engine_dead_chat"),
    chat("engine_dead_chat_stream", **STREAM),
    message("engine_dead_messages"),
    get("engine_dead_health", "/health"),
]
