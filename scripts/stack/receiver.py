"""Who hears of alerts: which of Alertmanager's configurations counts."""

import os
from pathlib import Path

FOLDER = Path("monitoring/alertmanager")
URL_FILE = FOLDER / "webhook_url"


def chosen() -> Path:
    """The operator's own, the one that posts to a URL, or the one that calls nobody."""
    if (FOLDER / "own.yml").exists():
        return FOLDER / "own.yml"
    return FOLDER / ("webhook.yml" if URL_FILE.exists() else "alertmanager.yml")


def described(config: Path) -> str:
    return {
        "own.yml": "as monitoring/alertmanager/own.yml says",
        "webhook.yml": "posted to the URL in monitoring/alertmanager/webhook_url",
    }.get(config.name, "shown only; monitoring/alertmanager/alertmanager.yml says how to be called")


def rendered(config: Path, *, into: Path) -> Path:
    """`config` for an Alertmanager that runs here: the URL itself instead of a container's file.

    Debian's Alertmanager does not know url_file. The copy holds the URL: only its owner reads it.
    """
    if config.name != "webhook.yml":
        return config
    url = URL_FILE.read_text().strip()
    text = config.read_text().replace("url_file: /etc/alertmanager/webhook_url", f'url: "{url}"')
    into.parent.mkdir(exist_ok=True)
    into.unlink(missing_ok=True)
    descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as copy:
        copy.write(text)
    return into
