"""Tables: a row per label set, a column per query."""

from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.dashboards.panels import Panel
from monitoring.dashboards.scales import Thresholds, Unit, Word
from monitoring.dashboards.values import Json


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: the field it comes from and how it is shown."""

    field: str
    title: str
    unit: Unit = Unit.TEXT
    thresholds: Thresholds | None = None
    words: Sequence[Word] = ()

    def override(self) -> Json:
        properties: list[Json] = [{"id": "unit", "value": self.unit.value}]
        if self.thresholds is not None or self.words:
            properties.append(
                {"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}}
            )
        if self.thresholds is not None:
            properties.append({"id": "thresholds", "value": self.thresholds.json()})
        if self.words:
            words = [word.json(index) for index, word in enumerate(self.words)]
            properties.append({"id": "mappings", "value": words})
        return {"matcher": {"id": "byName", "options": self.title}, "properties": properties}


@dataclass(frozen=True, kw_only=True)
class Table(Panel):
    """A row per label set; the values of query A, B, ... are the fields `Value #A`, `Value #B`.

    Only the named columns are shown, in their order.
    """

    kind = "table"
    columns: Sequence[Column] = ()
    unit: Unit = Unit.NUMBER
    width: int = 24

    def custom(self) -> Json:
        return {"align": "auto", "filterable": True, "inspect": False}

    def options(self) -> Json:
        return {"showHeader": True, "cellHeight": "sm", "footer": {"show": False}}

    def overrides(self) -> list[Json]:
        return [column.override() for column in self.columns]

    def transformations(self) -> list[Json]:
        if not self.columns:
            return []
        fields = [column.field for column in self.columns]
        kept: Json = {"include": {"names": fields}}
        organised: Json = {
            "excludeByName": {},
            "indexByName": {name: index for index, name in enumerate(fields)},
            "renameByName": {column.field: column.title for column in self.columns},
        }
        return [
            {"id": "merge", "options": {}},
            {"id": "filterFieldsByName", "options": kept},
            {"id": "organize", "options": organised},
        ]
