"""nginx as a plain proxy: the practical limit. Run as a program, this installs it where it can."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

_PLACES: Final = "/usr/sbin:/usr/local/sbin:/usr/local/bin"
# Installing the package must not start a server on port 80.
_QUIET: Final = {"RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}


def find_nginx() -> str | None:
    """The program, on PATH or where distributions put it."""
    return shutil.which("nginx") or shutil.which("nginx", path=_PLACES)


def configuration(*, port: int, upstream_port: int, folder: Path) -> str:
    """One worker that passes every byte on as it comes, over kept-alive connections."""
    return f"""
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream vllm {{
        server 127.0.0.1:{upstream_port};
        keepalive 2048;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_requests 1000000000;
        location / {{
            proxy_pass http://vllm;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def version(binary: str) -> str:
    told = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True)
    return told.stderr.strip().removeprefix("nginx version: ")


def install() -> str:
    """nginx from the distribution's own packages. Raises OSError where that cannot be had."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise OSError("install nginx with your package manager (apt-get only as root)")
    environment = {**os.environ, **_QUIET}
    for step in (["update"], ["install", "-y", "--no-install-recommends", "nginx"]):
        done = subprocess.run(
            [apt, "-qq", *step], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise OSError(f"apt-get {step[0]}: {done.stderr.strip()[-500:]}")
    binary = find_nginx()
    if binary is None:
        raise OSError("apt-get installed nginx, and it is nowhere to be found")
    return binary


def main() -> int:
    try:
        binary = find_nginx() or install()
    except OSError as fault:
        sys.stderr.write(f"no nginx: {fault}\n")
        return 1
    sys.stdout.write(f"{binary}: {version(binary)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
