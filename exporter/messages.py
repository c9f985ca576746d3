"""What the exporter and its worker process tell each other: one JSON value per line."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

from exporter.families import FAMILIES
from exporter.snapshot import Device, DeviceReading, Fault, Reading, Sample, XidEvent
from exporter.source import SimulatedFault, SourceUnavailable, Trouble

_FAMILY: Final = {family.name: family for family in FAMILIES}

# Orders to the worker.
COLLECT: Final = "collect"
WHERE: Final = "where"
# Reports from it.
OPENED: Final = "opened"
UNAVAILABLE: Final = "unavailable"
READING: Final = "reading"
XID: Final = "xid"
ACTIVITY: Final = "activity"


def line(kind: str, body: object = None) -> bytes:
    return json.dumps([kind, body], separators=(",", ":")).encode() + b"\n"


def parsed(raw: bytes) -> tuple[str, Any]:
    kind, body = json.loads(raw)
    return kind, body


def faults_out(faults: Iterable[SimulatedFault]) -> list[dict[str, Any]]:
    return [asdict(fault) for fault in faults]


def faults_in(body: Iterable[dict[str, Any]]) -> tuple[SimulatedFault, ...]:
    return tuple(SimulatedFault(**(fault | {"kind": Trouble(fault["kind"])})) for fault in body)


def unavailable_out(error: SourceUnavailable) -> dict[str, str]:
    return {"call": error.call, "error": error.error, "cure": error.cure}


def unavailable_in(body: dict[str, str]) -> SourceUnavailable:
    return SourceUnavailable(**body)


def xid_out(event: XidEvent) -> dict[str, Any]:
    return asdict(event)


def xid_in(body: dict[str, Any]) -> XidEvent:
    return XidEvent(**body)


def reading_out(reading: Reading) -> dict[str, Any]:
    return {
        "driver_version": reading.driver_version,
        "cuda_version": reading.cuda_version,
        "devices": [
            [
                asdict(device.device),
                [[sample.family.name, sample.value, sample.labels] for sample in device.samples],
            ]
            for device in reading.devices
        ],
        "faults": [asdict(fault) for fault in reading.faults],
    }


def reading_in(body: dict[str, Any]) -> Reading:
    return Reading(
        driver_version=body["driver_version"],
        cuda_version=body["cuda_version"],
        devices=tuple(
            DeviceReading(
                Device(**device),
                tuple(
                    Sample(_FAMILY[name], value, tuple(labels)) for name, value, labels in samples
                ),
            )
            for device, samples in body["devices"]
        ),
        faults=tuple(Fault(**fault) for fault in body["faults"]),
    )
