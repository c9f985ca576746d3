"""Faults of the GPUs' hardware, and whether the exporter itself can be believed."""

from typing import Final

from monitoring.dashboards.gpus.glance import RECOVERY
from monitoring.dashboards.gpus.work import each
from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Graph, Timeline
from monitoring.dashboards.promql import WINDOW
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import UP_OR_DOWN, YES_IS_BAD, Unit, limit, rising
from monitoring.dashboards.selectors import cells, gpu, host
from monitoring.dashboards.tables import Column, Table

_LIFELONG: Final = 'counter="aggregate"'

HEALTH: Final = Row(
    "Hardware health",
    (
        Timeline(
            title="Is each GPU on the bus?",
            shows="Whether each GPU answers.",
            when_bad="Down: usually XID 79. Drain its vLLM, reset the GPU or reboot the host.",
            queries=(
                Metric(f"min by (instance, gpu) (gpu_up{gpu()})", "GPU {{gpu}} {{instance}}"),
            ),
            unit=Unit.NUMBER,
            words=UP_OR_DOWN,
            empty="No exporter",
            runbook=("GpuLost",),
        ),
        Timeline(
            title="Does the driver ask for a recovery?",
            shows="The recovery action the driver recommends for each GPU (driver 570 and newer).",
            when_bad="Do what it says, after draining its vLLM.",
            queries=(each("gpu_recovery_action"),),
            unit=Unit.NUMBER,
            words=RECOVERY,
            empty="Not told by this driver",
            runbook=("GpuRecoveryNeeded",),
        ),
        Table(
            title="Which faults, and when?",
            shows="Every kind of XID fault seen since the exporter started, and when last.",
            when_bad="48, 62, 64, 74, 79, 95, 119, 120 need action; 13, 31, 43 are faults of the "
            "program that ran.",
            queries=(
                cells(
                    f"max by (instance, gpu, xid) (gpu_xid_last_timestamp_seconds{gpu()}) * 1000"
                ),
                cells(f"sum by (instance, gpu, xid) (gpu_xid_errors_total{gpu()})"),
            ),
            columns=(
                Column("instance", "Host"),
                Column("gpu", "GPU"),
                Column("xid", "XID"),
                Column("Value #A", "Last", Unit.MOMENT),
                Column("Value #B", "Times", Unit.NUMBER),
            ),
            empty="No faults",
            runbook=("GpuXidCritical",),
            width=8,
        ),
        Graph(
            title="Memory corrects its own errors",
            shows="ECC errors since the driver was loaded. Corrected ones are harmless in small "
            "numbers; one uncorrected is not.",
            when_bad="Uncorrected: the running work is wrong, restart vLLM; the row is remapped at "
            "the next reset.",
            queries=(
                Metric(
                    f"max by (instance, gpu, type) (gpu_ecc_errors_volatile{gpu()})",
                    "GPU {{gpu}} {{type}} {{instance}}",
                ),
            ),
            unit=Unit.NUMBER,
            empty="No ECC",
            runbook=("GpuMemoryErrors",),
        ),
        Graph(
            title="How worn is the memory?",
            shows="ECC errors of the card's whole life, and rows remapped because of them.",
            when_bad="Many remapped rows: the card ages; when spare rows run out it must be "
            "replaced.",
            queries=(
                Metric(
                    f"max by (instance, gpu, type) (gpu_ecc_errors_total{gpu(_LIFELONG)})",
                    "GPU {{gpu}} {{type}} errors {{instance}}",
                ),
                Metric(
                    f"max by (instance, gpu, type) (gpu_remapped_rows{gpu()})",
                    "GPU {{gpu}} {{type}} rows {{instance}}",
                ),
            ),
            unit=Unit.NUMBER,
            empty="No ECC",
            runbook=("GpuMemoryErrors",),
        ),
        Timeline(
            title="Does memory wait for a repair?",
            shows="Whether a row waits to be remapped at the next reset, or could not be.",
            when_bad="Pending: reset the GPU at the next quiet moment. Failed: replace the card.",
            queries=(
                each("gpu_remapped_rows_pending", legend="GPU {{gpu}} pending {{instance}}"),
                each("gpu_remapped_rows_failure", legend="GPU {{gpu}} failed {{instance}}"),
            ),
            unit=Unit.NUMBER,
            words=YES_IS_BAD,
            empty="Not told by these GPUs",
            runbook=("GpuMemoryErrors",),
        ),
    ),
)

EXPORTER: Final = Row(
    "The exporter itself",
    (
        Graph(
            title="Are these numbers fresh?",
            shows="Time since the GPUs were last read with success.",
            when_bad="Growing: the driver hangs. The exporter serves no frozen values for a GPU it "
            "cannot read.",
            queries=(
                Metric(
                    "max by (instance) "
                    f"(time() - gpu_exporter_last_success_timestamp_seconds{host()})",
                    "{{instance}}",
                ),
            ),
            unit=Unit.SECONDS,
            thresholds=rising(15, 60),
            empty="No exporter",
            runbook=("GpuExporterStale",),
            width=6,
        ),
        Graph(
            title="How long does a look take?",
            shows="Duration of the last collection from all GPUs.",
            when_bad="Near GPU_EXPORTER_TIMEOUT_SECONDS: the driver is slow; switch "
            "GPU_EXPORTER_PCIE off to save 40 ms per GPU.",
            queries=(
                Metric(
                    f"max by (instance) (gpu_exporter_collect_duration_seconds{host()})",
                    "{{instance}}",
                ),
            ),
            unit=Unit.SECONDS,
            thresholds=rising(2, 4),
            empty="No exporter",
            runbook=("GpuExporterStale",),
            width=6,
        ),
        Graph(
            title="Which calls fail?",
            shows="Failed calls to the driver per second by call and error, and how often it had "
            "to be opened anew. What a card does not support is not counted.",
            when_bad="GpuIsLost, ResetRequired: the card. LibRmVersionMismatch: the driver was "
            "upgraded, reboot.",
            queries=(
                Metric(
                    "sum by (instance, call, error) "
                    f"(rate(gpu_exporter_errors_total{host()}[{WINDOW}]))",
                    "{{call}} {{error}} {{instance}}",
                ),
                Metric(
                    "sum by (instance) "
                    f"(rate(gpu_exporter_nvml_reinitializations_total{host()}[{WINDOW}]))",
                    "opened anew {{instance}}",
                ),
            ),
            unit=Unit.EVENTS_PER_SECOND,
            thresholds=limit(0.1),
            empty="No exporter",
            runbook=("GpuExporterStale", "GpuLost"),
            width=6,
        ),
        Timeline(
            title="Can the driver be reached?",
            shows="Whether the driver's library could be opened, and whether the last look at the "
            "GPUs succeeded.",
            when_bad="No library: no driver on this host, or a container without it.",
            queries=(
                Metric(
                    f"min by (instance) (gpu_exporter_nvml_available{host()})",
                    "driver {{instance}}",
                ),
                Metric(
                    f"min by (instance) (gpu_exporter_last_collect_success{host()})",
                    "last look {{instance}}",
                ),
            ),
            unit=Unit.NUMBER,
            words=UP_OR_DOWN,
            empty="No exporter",
            runbook=("GpuExporterStale",),
            width=6,
        ),
    ),
)
