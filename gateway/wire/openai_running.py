"""The token count of one stream while it runs, choice by choice."""

from gateway.exchange import TokenUsage
from gateway.wire.openai_usage import MOST_TOKENS, ReportedUsage


class RunningUsage:
    """Counts what an upstream reports. A count that was reported never goes down.

    vLLM's continuous usage is per choice, its prompt tokens per prompt; choices are numbered
    prompt by prompt. What is not reported is estimated: the prompt by `prompt_tokens`, the
    output by one token for each content event since the last report.
    """

    __slots__ = (
        "_choices",
        "_choices_per_prompt",
        "_has_begun",
        "_inputs",
        "_least_output",
        "_outputs",
        "_prompt_tokens",
        "_settled",
        "_unreported",
    )

    def __init__(self, *, choices_per_prompt: int, choices: int, prompt_tokens: int) -> None:
        self._choices_per_prompt = choices_per_prompt
        self._choices = choices
        self._prompt_tokens = prompt_tokens
        self._inputs: dict[int, int] = {}
        self._outputs: dict[int, int] = {}
        self._unreported = 0
        self._least_output = 0
        self._settled: int | None = None
        self._has_begun = False

    def begin(self) -> None:
        """The upstream has said something: from here on the prompt counts."""
        self._has_begun = True

    def report(self, choice: object, reported: ReportedUsage) -> None:
        """The running count of one choice; of a choice that was not asked for, nothing."""
        if type(choice) is not int or not 0 <= choice < self._choices:
            return
        prompt = choice // self._choices_per_prompt
        if reported.input_tokens is not None:
            self._inputs[prompt] = max(reported.input_tokens, self._inputs.get(prompt, 0))
        if reported.output_tokens is not None:
            self._trust_reports()
            self._outputs[choice] = max(reported.output_tokens, self._outputs.get(choice, 0))

    @property
    def can_advance(self) -> bool:
        """True where there is but one choice, and its prompt and output have been reported."""
        return self._choices == 1 and 0 in self._inputs and 0 in self._outputs

    def advance(self, output_tokens: object) -> None:
        """The running output count of the only choice; see `can_advance`."""
        if self._unreported:
            self._trust_reports()
        if type(output_tokens) is int and self._outputs[0] < output_tokens <= MOST_TOKENS:
            self._outputs[0] = output_tokens

    def count_unreported(self) -> None:
        """A content event passed without a count: at least one token."""
        self._unreported += 1

    def settle(self, reported: ReportedUsage) -> None:
        """The final count, over all choices."""
        if reported.input_tokens is not None:
            self._settled = max(reported.input_tokens, sum(self._inputs.values()))
        if reported.output_tokens is not None:
            self._trust_reports()
            self._least_output = max(self._least_output, reported.output_tokens)

    def as_usage(self) -> TokenUsage:
        if not self._has_begun:
            return TokenUsage()
        output_tokens = self._output_tokens()
        is_estimated = self._unreported > 0
        if self._settled is not None:
            return TokenUsage(self._settled, output_tokens, is_estimated)
        input_tokens = sum(self._inputs.values())
        if len(self._inputs) * self._choices_per_prompt < self._choices:
            # Prompts that have said nothing yet are being read all the same.
            input_tokens, is_estimated = max(input_tokens, self._prompt_tokens), True
        return TokenUsage(input_tokens, output_tokens, is_estimated)

    def _output_tokens(self) -> int:
        return max(self._least_output, sum(self._outputs.values()) + self._unreported)

    def _trust_reports(self) -> None:
        """From here on the reports speak for the events that were counted before them."""
        if self._unreported:
            self._least_output = self._output_tokens()
            self._unreported = 0
