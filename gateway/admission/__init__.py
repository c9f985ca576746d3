"""Admission: how many calls run at the same time, who waits, and in which order they go on."""

from gateway.admission.gate import Admission, AdmissionConfig, AdmissionGate
from gateway.admission.place import Line, Rooms, Unbounded

__all__ = ["Admission", "AdmissionConfig", "AdmissionGate", "Line", "Rooms", "Unbounded"]
