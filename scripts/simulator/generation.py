"""Chat, completion and responses bodies turned into work for the engine."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from scripts.simulator import answers, prompts, tokens
from scripts.simulator.config import SimulatorConfig
from scripts.simulator.errors import bad_request, invalid, unknown_model
from scripts.simulator.fields import Fields
from scripts.simulator.schema import instance_of
from scripts.simulator.work import Choice, Dialect, Prompt, UsageReports, Work

END_OF_TEXT = ""
COMPLETION_MAX_TOKENS = 16
# vLLM's own bound on n.
MAX_COPIES = 16384


@dataclass(frozen=True, slots=True)
class Script:
    """What must be said instead of small talk: JSON, perhaps as a call of a tool."""

    text: str
    tool_name: str = ""


def chat_work(fields: Fields, config: SimulatorConfig) -> Work:
    """Raises ApiError (400 or 404) as vLLM refuses."""
    model = served_model(fields, config.models)
    _check_sampling(fields)
    prompt = prompts.from_chat(fields, config)
    named = isinstance(fields.get("tool_choice"), dict)
    limit_name = (
        "max_tokens" if fields.get("max_completion_tokens") is None else "max_completion_tokens"
    )
    limit = _limit(limit_name, None, prompt, fields, config)
    choice = _choice(prompt, limit, fields, config, script=_script(fields))
    work = Work(
        dialect=Dialect.CHAT,
        model=model,
        prompts=(prompt,),
        choices=(choice,) * fields.at_least(1, "n", 1),
        stream=fields.flag("stream"),
        usage_reports=_usage_reports(fields, config),
        max_tokens=limit,
        named_tool=named,
    )
    return answers.with_answer(work)


def completion_work(fields: Fields, config: SimulatorConfig) -> Work:
    """Raises ApiError (400 or 404) as vLLM refuses."""
    model = served_model(fields, config.models)
    _check_sampling(fields)
    asked = prompts.from_member("prompt", fields, config)
    copies = fields.at_least(1, "n", 1)
    echo = fields.flag("echo")
    choices = []
    if echo and fields.integer("max_tokens") == 0:
        return _echo_alone(fields, model, asked)
    for prompt in asked:
        limit = _limit("max_tokens", COMPLETION_MAX_TOKENS, prompt, fields, config)
        choice = _choice(prompt, limit, fields, config, script=None)
        choices += [_echoed(choice) if echo else choice] * copies
    work = Work(
        dialect=Dialect.COMPLETION,
        model=model,
        prompts=asked,
        choices=tuple(choices),
        stream=fields.flag("stream"),
        usage_reports=_usage_reports(fields, config),
    )
    return answers.with_answer(work)


def responses_work(fields: Fields, config: SimulatorConfig) -> Work:
    """Raises ApiError (400 or 404) as vLLM refuses."""
    model = served_model(fields, config.models)
    asked = fields.require("input")
    messages: list[object] = [{"role": "user", "content": asked}]
    if isinstance(asked, list):
        messages = asked
    elif not isinstance(asked, str):
        raise invalid("body.input", "Input should be a valid string", "string_type")
    if instructions := fields.text("instructions"):
        messages = [{"role": "system", "content": instructions}, *messages]
    prompt = prompts.from_text(tokens.chat_prompt(messages), fields, config)
    limit = _limit("max_output_tokens", None, prompt, fields, config)
    work = Work(
        dialect=Dialect.RESPONSES,
        model=model,
        prompts=(prompt,),
        choices=(_choice(prompt, limit, fields, config, script=None),),
        stream=fields.flag("stream"),
        max_tokens=limit,
    )
    return answers.with_answer(work)


def served_model(fields: Fields, served: Sequence[str], param: str | None = "model") -> str:
    """The model asked for, the first when none is named; raises ApiError (404)."""
    name = fields.text("model") or (served[0] if served else "")
    if name not in served:
        raise unknown_model(name, param)
    return name


def _check_sampling(fields: Fields) -> None:
    temperature = fields.number("temperature", 1.0)
    if temperature < 0:
        raise bad_request(
            f"temperature must be non-negative, got {temperature}. "
            f"(parameter=temperature, value={temperature})",
            "temperature",
        )
    copies = fields.at_least(1, "n", 1)
    if copies > MAX_COPIES:
        raise bad_request(f"n must be at most {MAX_COPIES}, got {copies}.")
    if copies > 1 and temperature == 0:
        raise bad_request(f"n must be 1 when using greedy sampling, got {copies}.")
    if fields.get("stream_options") is not None and not fields.flag("stream"):
        raise bad_request(
            "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
            "stream_options",
        )


def _limit(
    name: str, default: int | None, prompt: Prompt, fields: Fields, config: SimulatorConfig
) -> int:
    room = config.max_model_len - prompt.tokens
    asked = fields.at_least(1, name, room if default is None else default)
    if room < 1:
        raise bad_request(f"{name} must be at least 1, got {room}.", name)
    return min(asked, room)


def _usage_reports(fields: Fields, config: SimulatorConfig) -> UsageReports:
    if config.force_include_usage:
        return UsageReports.CONTINUOUS
    options = fields.nested("stream_options")
    if not options.flag("include_usage"):
        return UsageReports.NONE
    continuous = options.flag("continuous_usage_stats")
    return UsageReports.CONTINUOUS if continuous else UsageReports.FINAL


def _choice(
    prompt: Prompt, limit: int, fields: Fields, config: SimulatorConfig, *, script: Script | None
) -> Choice:
    if script is not None:
        pieces = [*tokens.split(script.text), END_OF_TEXT]
        finish = "length" if len(pieces) > limit else "stop"
        return Choice(prompt, pieces[:limit], finish, None, script.tool_name)
    natural = max(config.output_tokens, fields.at_least(0, "min_tokens", 0), 1)
    if natural > limit or fields.flag("ignore_eos"):
        choice = Choice(prompt, tokens.spoken(prompt.text, limit), "length")
    else:
        pieces = [*tokens.spoken(prompt.text, natural - 1), END_OF_TEXT]
        choice = Choice(prompt, pieces, "stop")
    return _stopped(choice, fields)


def _stopped(choice: Choice, fields: Fields) -> Choice:
    """The choice cut before its first stop string; the token that completes it is charged."""
    asked = fields.get("stop")
    wanted = [asked] if isinstance(asked, str) else asked if isinstance(asked, list) else []
    spared = len("".join(choice.pieces[: fields.at_least(0, "min_tokens", 0)]))
    text = choice.text
    found = [
        (text.find(stop, spared), stop)
        for stop in wanted
        if isinstance(stop, str) and stop and text.find(stop, spared) >= 0
    ]
    if not found:
        return choice
    cut, stop = min(found)
    end = cut + len(stop)
    shown = end if fields.flag("include_stop_str_in_output") else cut
    pieces, position = [], 0
    for piece in choice.pieces:
        if position >= end:
            break
        pieces.append(piece[: max(0, shown - position)])
        position += len(piece)
    return Choice(choice.prompt, pieces, "stop", stop)


def _echo_alone(fields: Fields, model: str, asked: tuple[Prompt, ...]) -> Work:
    # vLLM generates one token all the same, charges it and does not show it.
    choices = tuple(Choice(prompt, [prompt.text], "length") for prompt in asked)
    work = Work(Dialect.COMPLETION, model, asked, choices=choices, stream=fields.flag("stream"))
    return answers.with_answer(work)


def _echoed(choice: Choice) -> Choice:
    first, *rest = choice.pieces
    pieces = [choice.prompt.text + first, *rest]
    return Choice(choice.prompt, pieces, choice.finish_reason, choice.stop_reason)


def _script(fields: Fields) -> Script | None:
    tool_choice = fields.get("tool_choice")
    if tool_choice == "required" or isinstance(tool_choice, dict):
        return _tool_call(fields, tool_choice)
    wanted = fields.nested("response_format")
    if wanted.text("type") == "json_object":
        return Script('{"answer":"calm"}')
    if wanted.text("type") == "json_schema":
        schema = wanted.nested("json_schema").get("schema")
        return Script(orjson.dumps(instance_of(schema)).decode())
    return None


def _tool_call(fields: Fields, tool_choice: object) -> Script:
    functions = [
        Fields(tool).nested("function") for tool in fields.items("tools") if isinstance(tool, dict)
    ]
    if isinstance(tool_choice, dict):
        name = Fields(tool_choice).nested("function").text("name")
        functions = [function for function in functions if function.text("name") == name]
    if not functions:
        raise bad_request("The tool named in `tool_choice` is not among `tools`.", "tool_choice")
    arguments = instance_of(functions[0].get("parameters"))
    return Script(orjson.dumps(arguments).decode(), functions[0].text("name"))
