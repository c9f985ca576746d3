"""What the GPUs draw, how hot they get, and what slows them down."""

from typing import Final

from monitoring.dashboards.gpus.glance import MARGIN
from monitoring.dashboards.gpus.work import EACH, each
from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Graph, Timeline
from monitoring.dashboards.promql import WINDOW
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import Colour, Unit, Word, rising
from monitoring.dashboards.selectors import gpu

_JOULES: Final = "gpu_energy_joules_total"
_REASON: Final = "instance, gpu, reason"
_SM: Final = 'clock="sm"'
_NOT_IDLE: Final = 'reason!="gpu_idle"'

POWER: Final = Row(
    "Power, heat and clocks",
    (
        Graph(
            title="How near is the power limit?",
            shows="Power drawn by each GPU; the dashed line is the lowest enforced limit.",
            when_bad="At the line: normal at full load, the clock gives way. Far below under load: "
            "throttled or waiting for a peer.",
            queries=(
                each("gpu_power_draw_watts"),
                Metric(f"min(gpu_power_limit_watts{gpu()})", "limit"),
            ),
            unit=Unit.WATTS,
            ceilings=("limit",),
            empty="No GPU",
            runbook=("GpuImbalance", "GpuThermalThrottling"),
        ),
        Graph(
            title="How hot are they?",
            shows="Temperature of core and memory.",
            when_bad="One GPU hotter than its neighbours: its air path. All of them: the room.",
            queries=(
                Metric(
                    f"max by (instance, gpu, sensor) (gpu_temperature_celsius{gpu()})",
                    f"{EACH} {{{{sensor}}}}",
                ),
            ),
            unit=Unit.CELSIUS,
            thresholds=rising(80, 90),
            empty="No GPU",
            runbook=("GpuThermalThrottling",),
        ),
        Graph(
            title="The GPUs stay 5 degrees from slowing down",
            shows="Margin to the temperature at which each GPU slows itself down.",
            when_bad="Below 5 for minutes it warns: fans, filters, air.",
            queries=(each("gpu_temperature_margin_celsius"),),
            unit=Unit.CELSIUS,
            thresholds=MARGIN,
            empty="Not told by these GPUs",
            runbook=("GpuThermalThrottling",),
        ),
        Graph(
            title="Do they run at full clock?",
            shows="SM clock as a share of the card's highest.",
            when_bad="Low under load: the timeline beside it tells the reason.",
            queries=(
                Metric(
                    f"max by (instance, gpu) (gpu_clock_hertz{gpu(_SM)}) / "
                    f"(max by (instance, gpu) (gpu_clock_max_hertz{gpu(_SM)}) > 0)",
                    EACH,
                ),
            ),
            unit=Unit.RATIO,
            most=1,
            empty="No GPU",
            runbook=("GpuThermalThrottling", "GpuImbalance"),
        ),
        Timeline(
            title="What slows the GPUs down?",
            shows="Each throttle reason that was active in the shown time; idling is left out. "
            "sw_power_cap is normal at full load.",
            when_bad="thermal: cooling. hw_power_brake: the power supply. hw_slowdown with "
            "neither: the card itself.",
            queries=(
                Metric(
                    f"max by ({_REASON}) (gpu_throttle_active{gpu(_NOT_IDLE)}) "
                    f"and on ({_REASON}) "
                    f"max_over_time(gpu_throttle_active{gpu(_NOT_IDLE)}[$__range]) > 0",
                    "GPU {{gpu}} {{reason}} {{instance}}",
                ),
            ),
            unit=Unit.NUMBER,
            words=(Word(0, "no", Colour.QUIET), Word(1, "active", Colour.WARNING)),
            empty="Nothing",
            runbook=("GpuThermalThrottling",),
        ),
        Graph(
            title="How much time is lost to throttling?",
            shows="Share of time throttled, by reason, from the card's own counters: they see what "
            "happens between two looks.",
            when_bad="Heat or brake above zero: see the runbook. The power cap alone: consider a "
            "higher limit.",
            queries=(
                Metric(
                    "max by (instance, gpu, reason) "
                    f"(rate(gpu_throttle_seconds_total{gpu()}[{WINDOW}]))",
                    f"{EACH} {{{{reason}}}}",
                ),
            ),
            unit=Unit.RATIO,
            empty="Not told by these GPUs",
            runbook=("GpuThermalThrottling",),
        ),
        Graph(
            title="How many tokens does a joule give?",
            shows="Generated tokens of all vLLMs by energy of the chosen GPUs: the price of an "
            "answer.",
            when_bad="Falling at equal load: longer prompts, or work thrown away by preemptions.",
            queries=(
                Metric(
                    "sum(model_name:vllm_generation_tokens:rate5m) / "
                    f"(sum(rate({_JOULES}{gpu()}[5m])) > 0)",
                    "tokens per joule",
                ),
            ),
            unit=Unit.TOKENS_PER_JOULE,
            width=12,
            runbook=("VllmKvCacheSaturated",),
        ),
        Graph(
            title="How much energy does a day take?",
            shows="Energy of each GPU over the 24 hours before, in kilowatt-hours.",
            when_bad="Idle GPUs draw a fifth of their limit: let unused models sleep.",
            queries=(
                Metric(f"sum by (instance, gpu) (increase({_JOULES}{gpu()}[1d])) / 3.6e6", EACH),
            ),
            unit=Unit.KILOWATT_HOURS,
            empty="Not told by these GPUs",
            width=12,
        ),
    ),
)
