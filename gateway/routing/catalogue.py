"""Which models there are, by their own names and by others, and what each can do."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches

from gateway.errors import GatewayError, InvalidRequest, ModelNotFound, UpstreamUnavailable
from gateway.exchange import Operation, Principal, ServedModel
from gateway.routing.aliases import Aliases
from gateway.routing.upstream import Upstream


class Catalogue:
    """One state of all that is served; made anew when that changes."""

    def __init__(
        self, upstreams: Iterable[Upstream], *, aliases: Aliases, default_model: str | None
    ) -> None:
        self._aliases = aliases
        self._default_model = default_model
        self._models: dict[str, ServedModel] = {}
        self._accepts: dict[str, frozenset[Operation]] = {}
        self._purposes: dict[str, str] = {}
        self._is_whole = True
        for upstream in upstreams:
            self._is_whole = self._is_whole and upstream.was_discovered
            for model in upstream.models.values():
                self._add(model, upstream)

    def _add(self, model: ServedModel, upstream: Upstream) -> None:
        known = self._models.get(model.name)
        if known is None or known.context_tokens is None:
            self._models[model.name] = model
        self._accepts[model.name] = self._accepts.get(model.name, frozenset()) | upstream.accepts
        self._purposes.setdefault(model.name, upstream.definition.purpose)

    def models(self) -> list[ServedModel]:
        """The union of what the upstreams serve, by name."""
        return [self._models[name] for name in sorted(self._models)]

    def listing(self, principal: Principal) -> list[ServedModel]:
        """What a caller may name, by name: models, and exact aliases of models that are there."""
        names = {name: model for name, model in self._models.items() if principal.may_use(name)}
        for alias, target in self._aliases.exact.items():
            model = self._models.get(target)
            is_allowed = principal.may_use(alias) or principal.may_use(target)
            if model is not None and alias not in self._models and is_allowed:
                names[alias] = ServedModel(alias, model.context_tokens)
        return [names[name] for name in sorted(names)]

    def find(self, name: str, *, visible: Callable[[str], bool]) -> ServedModel:
        """What a name stands for, under that name: a model, an alias, or what a pattern matches.

        A name is visible by itself or by the model it stands for. Raises as `resolve` does where
        nothing that is visible has this name.
        """
        model = self._named(name)
        if model is None or not (visible(name) or visible(model.name)):
            raise self._unknown(name, visible)
        return model if model.name == name else ServedModel(name, model.context_tokens)

    def resolve(
        self,
        name: str,
        *,
        operation: Operation = Operation.CHAT,
        visible: Callable[[str], bool],
    ) -> ServedModel:
        """The model a client named, or the only sensible one if it named none.

        A model's own name wins over an alias. Raises ModelNotFound, InvalidRequest if none was
        named or if what is named cannot do this, or UpstreamUnavailable while an upstream that
        might serve it has never been reached. `visible` keeps other keys' models out of the
        suggestions.
        """
        name = name or self._default_name(operation, visible)
        model = self._named(name)
        if model is None:
            raise self._unknown(name, visible)
        if operation not in self._accepts[model.name]:
            raise InvalidRequest(
                f"'{name[:200]}' does {self._purposes[model.name]} only; {operation.value} is "
                f"for other models.",
                code="unsupported_operation",
                param="model",
            )
        return model

    def _named(self, name: str) -> ServedModel | None:
        model = self._models.get(name)
        if model is not None:
            return model
        return self._models.get(self._aliases.target(name) or "")

    def _default_name(self, operation: Operation, visible: Callable[[str], bool]) -> str:
        if self._default_model and self._can(self._default_model, operation):
            return self._default_model
        names = [name for name in self._models if visible(name) and self._can(name, operation)]
        return names[0] if len(names) == 1 else ""

    def _can(self, name: str, operation: Operation) -> bool:
        accepts = self._accepts.get(name)
        return accepts is None or operation in accepts

    def _unknown(self, name: str, visible: Callable[[str], bool]) -> GatewayError:
        if not self._is_whole:
            return UpstreamUnavailable(
                "The model server has not answered yet; it may be starting.",
                retry_after_seconds=2.0,
            )
        known = [served for served in sorted(self._models) if visible(served)]
        if not name:
            served = f" Served here: {', '.join(known)}." if known else ""
            return InvalidRequest(
                f"Name a model: 'model' is missing.{served}",
                code="missing_required_parameter",
                param="model",
            )
        aliases = [
            alias
            for alias, target in sorted(self._aliases.exact.items())
            if target in self._models and (visible(alias) or visible(target))
        ]
        return ModelNotFound(_not_served(name, [*known, *aliases]), param="model")


def _not_served(name: str, known: list[str]) -> str:
    near = get_close_matches(name[:200], known, n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(near)}?" if near else " GET /v1/models lists what is."
    return f"The model '{name[:200]}' is not served here.{hint}"
