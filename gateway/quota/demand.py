"""What a call may cost, as far as it can be told before anybody has counted."""

from gateway.exchange import InferenceCall, PromptSize, ServedModel
from gateway.quota.ledger import TokenDemand

# A prompt guessed longer than so many times what remains is refused by the guess: hardly any text
# compresses better than that, and tokenizers do not work for hopeless requests.
OVERESTIMATE_MAX = 16


def demand_of(call: InferenceCall, model: ServedModel, *, input_tokens: int) -> TokenDemand:
    """What to reserve for a prompt of so many tokens and the longest answer that may follow."""
    choices, output_tokens = call.choices, call.output_limit
    if model.context_tokens is not None:
        # Prompt and output share one context, so what a guess takes from the one it gives the
        # other, and their sum holds even where the guess is wrong. Not so with several choices or
        # prompts: each choice has its own output, and the prompt may be as short as one token.
        room = max(1, model.context_tokens - (input_tokens if choices == 1 else 1))
        output_tokens = room if output_tokens is None else min(output_tokens, room)
    return TokenDemand(model.name, input_tokens, output_tokens, choices)


def is_worth_counting(prompt: PromptSize, guess: TokenDemand, remaining: int) -> bool:
    """Whether the estimate's error could carry the key over its quota, and a count could not
    but refuse."""
    if prompt.ceiling == prompt.estimate:
        return False
    if remaining <= 0 or prompt.estimate > remaining * OVERESTIMATE_MAX:
        return False
    if guess.output_tokens is None:
        return True
    return remaining < prompt.ceiling + guess.output_tokens * guess.choices
