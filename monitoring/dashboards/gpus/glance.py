"""The GPUs in eight tiles and one table."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Tile
from monitoring.dashboards.scales import (
    NEUTRAL,
    UP_OR_DOWN,
    Colour,
    Unit,
    Word,
    falling,
    limit,
    rising,
)
from monitoring.dashboards.selectors import cells, gpu, host, now
from monitoring.dashboards.tables import Column, Table

# Reasons that cost speed for a cause that somebody must remove; idling and the power cap do not.
HARMFUL: Final = 'reason=~"hw_slowdown|sw_thermal|hw_thermal|hw_power_brake"'
RECOVERY: Final = (
    Word(0, "none", Colour.GOOD),
    Word(1, "reset the GPU", Colour.BAD),
    Word(2, "reboot", Colour.BAD),
    Word(3, "drain peers", Colour.WARNING),
    Word(4, "drain, then reset", Colour.BAD),
    Word(5, "IMEX", Colour.BAD),
    Word(6, "reset the bus", Colour.BAD),
    Word(7, "reboot the system", Colour.BAD),
)
MARGIN: Final = falling(5, 15)
_ONE: Final = "instance, gpu, uuid"


def _cell(metric: str, *more: str) -> str:
    return f"max by ({_ONE}) ({metric}{gpu(*more)})"


GLANCE: Final = Row(
    "At a glance",
    (
        Tile(
            title="How many GPUs are missing?",
            shows="GPUs expected (GPU_EXPECTED_COUNT or seen at start), less those that answer.",
            when_bad="A GPU fell off the bus. Its telemetry disappears rather than freezes.",
            queries=(
                now(
                    f"sum(gpu_exporter_devices_expected{host()}) - "
                    f"sum(gpu_exporter_devices_visible{host()})"
                ),
            ),
            unit=Unit.NUMBER,
            thresholds=limit(1),
            empty="No exporter",
            runbook=("GpuLost",),
            width=6,
        ),
        Tile(
            title="How busy are they?",
            shows="Mean share of time in which any kernel ran. Waiting for a peer counts as busy.",
            when_bad="Low under load: the CPU, the network or the scheduler holds them up.",
            queries=(now(f"avg(gpu_utilization_ratio{gpu()})"),),
            unit=Unit.RATIO,
            thresholds=NEUTRAL,
            empty="No GPU",
            width=6,
        ),
        Tile(
            title="How full is their memory?",
            shows="The fullest GPU. vLLM takes --gpu-memory-utilization of it at start.",
            when_bad="Above what vLLM was given: another process shares the card.",
            queries=(
                now(f"max(gpu_memory_used_bytes{gpu()} / (gpu_memory_total_bytes{gpu()} > 0))"),
            ),
            unit=Unit.RATIO,
            thresholds=rising(0.95, 0.99),
            empty="No GPU",
            width=6,
        ),
        Tile(
            title="How much power do they draw?",
            shows="All chosen GPUs together.",
            when_bad="Low under load: throttled or waiting.",
            queries=(now(f"sum(gpu_power_draw_watts{gpu()})"),),
            unit=Unit.WATTS,
            thresholds=NEUTRAL,
            empty="No GPU",
            width=6,
        ),
        Tile(
            title="How far from too hot?",
            shows="The smallest margin to the temperature at which a GPU slows down.",
            when_bad="Below 5 degrees it will throttle: fans, filters, air.",
            queries=(now(f"min(gpu_temperature_margin_celsius{gpu()})"),),
            unit=Unit.CELSIUS,
            thresholds=MARGIN,
            empty="Not told by these GPUs",
            runbook=("GpuThermalThrottling",),
            width=6,
        ),
        Tile(
            title="How many GPUs are slowed down?",
            shows="GPUs throttled by heat, a power brake or a hardware slowdown. The software "
            "power cap is normal at full load and not counted.",
            when_bad="The timeline 'What slows the GPUs down?' names the reason.",
            queries=(now(f"sum(max by ({_ONE}) (gpu_throttle_active{gpu(HARMFUL)}))"),),
            unit=Unit.NUMBER,
            thresholds=limit(1),
            empty="No GPU",
            runbook=("GpuThermalThrottling",),
            width=6,
        ),
        Tile(
            title="How many kinds of fault lately?",
            shows="Kinds of XID faults within the last hour.",
            when_bad="The table 'Which faults, and when?' has their numbers; the runbook tells "
            "which of them matter.",
            queries=(
                now(
                    f"count(time() - gpu_xid_last_timestamp_seconds{gpu()} < 3600) "
                    f"or 0 * sum(gpu_exporter_build_info{host()})"
                ),
            ),
            unit=Unit.NUMBER,
            thresholds=limit(1),
            empty="No exporter",
            runbook=("GpuXidCritical",),
            width=6,
        ),
        Tile(
            title="How old are these numbers?",
            shows="Time since the exporter last read the GPUs with success.",
            when_bad="The driver hangs or is gone; nvidia-smi on the host will hang too.",
            queries=(now(f"max(time() - gpu_exporter_last_success_timestamp_seconds{host()})"),),
            unit=Unit.SECONDS,
            thresholds=rising(15, 60),
            empty="No exporter",
            runbook=("GpuExporterStale",),
            width=6,
        ),
        Table(
            title="How is each GPU?",
            shows="One line per GPU. A lost one keeps its line, down, without numbers.",
            when_bad="Down or a recovery action: take its vLLM out first (drain), then follow the "
            "runbook.",
            queries=(
                cells(f"max by ({_ONE}, name) (gpu_info{gpu()})"),
                cells(_cell("gpu_up")),
                cells(_cell("gpu_utilization_ratio")),
                cells(
                    f"{_cell('gpu_memory_used_bytes')} / ({_cell('gpu_memory_total_bytes')} > 0)"
                ),
                cells(f"{_cell('gpu_power_draw_watts')} / ({_cell('gpu_power_limit_watts')} > 0)"),
                cells(_cell("gpu_temperature_celsius", 'sensor="core"')),
                cells(_cell("gpu_temperature_margin_celsius")),
                cells(_cell("gpu_clock_hertz", 'clock="sm"')),
                cells(_cell("gpu_throttle_active", HARMFUL)),
                cells(_cell("gpu_recovery_action")),
            ),
            columns=(
                Column("instance", "Host"),
                Column("gpu", "GPU"),
                Column("name", "Name"),
                Column("uuid", "UUID"),
                Column("Value #B", "State", Unit.NUMBER, words=UP_OR_DOWN),
                Column("Value #C", "Busy", Unit.RATIO),
                Column("Value #D", "Memory", Unit.RATIO, rising(0.95, 0.99)),
                Column("Value #E", "Power of limit", Unit.RATIO),
                Column("Value #F", "Core", Unit.CELSIUS),
                Column("Value #G", "Margin", Unit.CELSIUS, MARGIN),
                Column("Value #H", "SM clock", Unit.HERTZ),
                Column(
                    "Value #I",
                    "Slowed down",
                    Unit.NUMBER,
                    words=(Word(0, "no", Colour.GOOD), Word(1, "yes", Colour.BAD)),
                ),
                Column("Value #J", "Recovery", Unit.NUMBER, words=RECOVERY),
            ),
            empty="No GPU",
            runbook=("GpuLost", "GpuRecoveryNeeded"),
            height=6,
        ),
    ),
)
