"""Speech to text: a form with a file goes in, words that depend only on the file come out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.parser import BytesParser
from email.policy import HTTP
from math import ceil
from zlib import crc32

from scripts.simulator import prompts, tokens
from scripts.simulator.answers import template
from scripts.simulator.config import SimulatorConfig
from scripts.simulator.errors import bad_request, invalid
from scripts.simulator.fields import Fields
from scripts.simulator.generation import END_OF_TEXT, served_model
from scripts.simulator.work import Choice, Dialect, UsageReports, Work

# As if every file were 16 bit mono at 16 kHz.
BYTES_PER_SECOND = 32_000
# What Whisper is asked with, and what a second of sound weighs.
_PROMPT = "<|startoftranscript|><|en|><|transcribe|><|notimestamps|>"
_SECOND = "<audio>"
_FILE_BYTES_MAX = 25 * 2**20
_WHOLE_FORMATS = ("verbose_json",)
_FORMATS = ("text", "json", *_WHOLE_FORMATS)


@dataclass(frozen=True, slots=True)
class AudioForm:
    """The values of a form, and the one file in it."""

    values: Fields
    file: bytes

    @classmethod
    def parse(cls, body: bytes, content_type: bytes) -> "AudioForm":
        """Raises ApiError (400) as vLLM refuses a form without a file."""
        head = b"Content-Type: %b\r\n\r\n" % content_type
        message = BytesParser(policy=HTTP).parsebytes(head + body)
        values: dict[str, object] = {}
        file: bytes | None = None
        for part in message.iter_parts():
            name = part.get_param("name", header="content-disposition")
            content = part.get_payload(decode=True)
            if not isinstance(content, bytes) or not isinstance(name, str):
                continue
            if part.get_filename() is None:
                values[name] = content.decode()
            elif name == "file":
                file = content
        if file is None:
            raise invalid("body.file", "Field required", "missing")
        return cls(Fields(values), file)


def transcription_work(form: AudioForm, config: SimulatorConfig) -> Work:
    """Raises ApiError (400 or 404) as vLLM refuses."""
    return _work(form, config, Dialect.TRANSCRIPTION)


def translation_work(form: AudioForm, config: SimulatorConfig) -> Work:
    """Raises ApiError (400 or 404) as vLLM refuses."""
    return _work(form, config, Dialect.TRANSLATION)


def _work(form: AudioForm, config: SimulatorConfig, dialect: Dialect) -> Work:
    fields = form.values
    model = served_model(fields, config.transcription_models)
    wanted = fields.text("response_format", "json")
    stream = fields.flag("stream")
    _check(form, wanted, stream=stream)
    seconds = max(1, ceil(len(form.file) / BYTES_PER_SECOND))
    prompt = prompts.from_text(_PROMPT + _SECOND * seconds, Fields({}), config)
    words = tokens.spoken(str(crc32(form.file)), max(1, config.output_tokens - 1))
    work = Work(
        dialect=dialect,
        model=model,
        prompts=(prompt,),
        choices=(Choice(prompt, [*words, END_OF_TEXT], "stop"),),
        stream=stream,
        usage_reports=_usage_reports(fields, config),
    )
    return replace(work, answer=template(_whole(work, wanted, seconds)))


def _check(form: AudioForm, wanted: str, *, stream: bool) -> None:
    fields = form.values
    for name in ("stream_include_usage", "stream_continuous_usage_stats"):
        # Any text is true to vLLM at this point, "false" too.
        if fields.text(name) and not stream:
            raise bad_request(
                f"Stream options can only be defined when `stream=True`. (parameter={name})", name
            )
    if len(form.file) > _FILE_BYTES_MAX:
        raise bad_request(
            "Maximum file size exceeded (parameter=audio_filesize_mb, "
            f"value={len(form.file) / 2**20})",
            "audio_filesize_mb",
        )
    if wanted not in _FORMATS:
        raise bad_request(
            "Currently only support response_format: `text`, `json`, `verbose_json` or "
            "`diarized_json`"
        )
    if wanted in _WHOLE_FORMATS and stream:
        raise bad_request(f"{wanted} format doesn't support streaming case")


def _usage_reports(fields: Fields, config: SimulatorConfig) -> UsageReports:
    if not (config.force_include_usage or fields.flag("stream_include_usage")):
        return UsageReports.NONE
    is_continuous = fields.flag("stream_continuous_usage_stats")
    return UsageReports.CONTINUOUS if is_continuous else UsageReports.FINAL


def _whole(work: Work, wanted: str, seconds: int) -> dict[str, object]:
    text = work.choices[0].text
    if wanted == "verbose_json":
        return {
            "duration": float(seconds),
            "language": "en",
            "text": text,
            "segments": [_segment(text, seconds)],
            "words": None,
        }
    if work.dialect is Dialect.TRANSLATION:
        return {"text": text}
    return {"text": text, "usage": {"type": "duration", "seconds": seconds}}


def _segment(text: str, seconds: int) -> Mapping[str, object]:
    return {
        "id": 0,
        "avg_logprob": -0.25,
        "compression_ratio": 1.5,
        "end": float(seconds),
        "no_speech_prob": None,
        "seek": 0,
        "start": 0.0,
        "temperature": 0.0,
        "text": text,
        "tokens": list(range(50364, 50364 + len(text.split()))),
    }
