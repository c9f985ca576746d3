"""Single requests: what the log says of them, and the traces of slow ones."""

from typing import Final

from monitoring.dashboards.dashboard import TRACED_SERVICE
from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Lines
from monitoring.dashboards.queries import LogLines, SlowTraces
from monitoring.dashboards.scales import Unit
from monitoring.dashboards.tables import Table

EVIDENCE: Final = Row(
    "Evidence",
    (
        Lines(
            title="What does the gateway complain about?",
            shows="Lines of the gateway's log at warning and above. Open one: its trace_id links "
            "to the trace, its request_id stands in vLLM's log too.",
            when_bad="Take the request_id of a line and search all logs for it.",
            queries=(LogLines('{service_name="gateway",level=~"warning|error|critical"}'),),
            empty="No complaints",
            runbook=("GatewayErrorBudgetBurnFast",),
            width=14,
            height=12,
        ),
        Table(
            title="Which requests were slow?",
            shows="The latest traced requests that took more than 2.5 s. Empty unless tracing is "
            "on (OTEL_EXPORTER_OTLP_ENDPOINT) and the request was sampled.",
            when_bad="Open a trace: the upstream's span and vLLM's own below it show whether it "
            "waited, computed a prompt or generated.",
            queries=(SlowTraces(TRACED_SERVICE, least="2500ms"),),
            unit=Unit.TEXT,
            empty="No slow traces",
            runbook=("GatewayTTFTHigh",),
            width=10,
            height=12,
        ),
    ),
)
