"""The metric names that dashboards may use, by who exposes them; histograms by their base name.

A name that changes in the code must change here, and so in every panel that shows it.
"""

from pathlib import Path
from typing import Any, Final

import yaml

RULES: Final = Path("monitoring/prometheus/rules")


def _named(prefix: str, names: str) -> frozenset[str]:
    return frozenset(prefix + name for name in names.split())


GATEWAY: Final = _named(
    "gateway_",
    """
    requests_total tokens_total refusals_total errors_total failovers_total upstream_aborts_total
    upstream_errors_total circuit_transitions_total ledger_flush_failures_total
    key_store_failures_total log_lines_dropped_total spans_dropped_total protocol_refusals_total
    goodput_requests_total slo_requests_total key_requests_total key_tokens_total
    key_refusals_total request_duration_seconds time_to_first_token_seconds
    time_per_output_token_seconds inter_event_seconds overhead_seconds queue_wait_seconds
    event_loop_lag_seconds requests_in_flight streams_open calls_in_flight calls_in_flight_limit
    queue_depth queue_depth_limit ledger_flush_age_seconds circuit_state upstream_healthy
    upstream_in_flight redis_up redis_errors_total redis_call_seconds worker_up
    worker_restarts_total quota_used_tokens quota_limit_tokens quota_reserved_tokens build_info
    """,
)
# Of every Python program that exposes metrics.
PROCESS: Final = _named(
    "process_",
    """
    cpu_seconds_total resident_memory_bytes virtual_memory_bytes start_time_seconds open_fds max_fds
    """,
)
# The default set of vLLM 0.32 and 0.33, and what speculative decoding adds.
VLLM: Final = _named(
    "vllm:",
    """
    num_requests_running num_requests_waiting num_requests_waiting_by_reason kv_cache_usage_perc
    engine_sleep_state cache_config_info lora_requests_info prompt_tokens_total
    generation_tokens_total request_success_total num_preemptions_total prefix_cache_queries_total
    prefix_cache_hits_total external_prefix_cache_queries_total external_prefix_cache_hits_total
    mm_cache_queries_total mm_cache_hits_total prompt_tokens_by_source_total
    prompt_tokens_cached_total prompt_tokens_cached_by_source_total admission_rejections_total
    time_to_first_token_seconds inter_token_latency_seconds request_time_per_output_token_seconds
    e2e_request_latency_seconds request_queue_time_seconds request_prefill_time_seconds
    request_decode_time_seconds request_inference_time_seconds request_prompt_tokens
    request_generation_tokens request_max_num_generation_tokens request_params_n
    request_params_max_tokens request_num_preemptions request_prefill_kv_computed_tokens
    iteration_tokens_total spec_decode_num_drafts_total spec_decode_num_draft_tokens_total
    spec_decode_num_accepted_tokens_total
    """,
)
# What the library that serves vLLM's metrics counts by itself.
VLLM_HTTP: Final = _named(
    "http_",
    """
    requests_total request_duration_seconds request_duration_highr_seconds
    """,
)
# Every device series has the labels gpu and uuid.
EXPORTER: Final = _named(
    "gpu_",
    """
    info up utilization_ratio memory_bandwidth_utilization_ratio memory_total_bytes
    memory_used_bytes memory_free_bytes memory_reserved_bytes temperature_celsius
    temperature_margin_celsius power_draw_watts power_limit_watts energy_joules_total clock_hertz
    clock_max_hertz throttle_active throttle_seconds_total ecc_errors_total ecc_errors_volatile
    remapped_rows remapped_rows_pending remapped_rows_failure recovery_action xid_errors_total
    xid_last_timestamp_seconds pcie_transmit_bytes_per_second pcie_receive_bytes_per_second
    pcie_link_generation pcie_link_width pcie_replays_total nvlink_transmit_bytes_total
    nvlink_receive_bytes_total nvlink_errors_total nvlink_link_up sm_active_ratio
    tensor_active_ratio dram_active_ratio processes process_memory_bytes mig_enabled
    mig_memory_used_bytes mig_memory_total_bytes exporter_last_collect_success
    exporter_last_success_timestamp_seconds exporter_collect_duration_seconds
    exporter_errors_total exporter_nvml_reinitializations_total exporter_nvml_available
    exporter_devices_visible exporter_devices_expected exporter_build_info
    """,
)
# Names that older vLLM had; a panel that asks for one is silently empty today.
REMOVED_FROM_VLLM: Final = (
    "vllm:gpu_cache_usage_perc",
    "vllm:cpu_cache_usage_perc",
    "vllm:gpu_prefix_cache",
    "vllm:num_requests_swapped",
    "vllm:time_per_output_token_seconds",
    "vllm:avg_prompt_throughput_toks_per_s",
    "vllm:avg_generation_throughput_toks_per_s",
)
PROMETHEUS: Final = frozenset({"up", "ALERTS"})

EXPOSED: Final = GATEWAY | PROCESS | VLLM | VLLM_HTTP | EXPORTER | PROMETHEUS


def recorded() -> set[str]:
    """The names of all recording rules."""
    files = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yml"))]
    found: list[dict[str, Any]] = [
        rule for file in files for group in file["groups"] for rule in group["rules"]
    ]
    return {rule["record"] for rule in found if "record" in rule}
