"""Write this machine's effective pip settings into one file: `pip config list | pip_settings.py FILE`.

That listing has all of pip's configuration files and PIP_* variables, so a build in an isolated root reaches the same
index by the same means. Prints the absolute paths of files and folders on this machine which the settings name
(certificates, folders of wheels), one a line. FILE may hold credentials: it is readable by its owner only.
"""

from __future__ import annotations

import ast
import configparser
import os
import sys
from pathlib import Path

# Weakest first. `config list` prints the merged files per section and the variables as a section of their own.
SECTIONS = ("global", "install", "wheel", ":env:")
NAMING_A_PATH = ("cert", "client-cert", "constraint", "find-links")


def effective_settings(listing: str) -> dict[str, str]:
    """The settings in the output of `pip config list`, by option name; a stronger section replaces a weaker one."""
    by_section: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in by_section:
            by_section[section][option] = str(ast.literal_eval(value))
    merged: dict[str, str] = {}
    for section in SECTIONS:
        merged.update(by_section[section])
    merged.pop("config-file", None)
    return merged


def named_paths(settings: dict[str, str]) -> list[str]:
    """The absolute paths among the settings that exist here, each once."""
    words = [word for option in NAMING_A_PATH for word in settings.get(option, "").split()]
    return sorted({word for word in words if word.startswith("/") and Path(word).exists()})


def main(target: str) -> None:
    """Write `target` and print the paths."""
    settings = effective_settings(sys.stdin.read())
    file = configparser.RawConfigParser()
    file["global"] = {option: value.replace("\n", "\n\t") for option, value in settings.items()}
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        file.write(stream)
    sys.stdout.writelines(f"{path}\n" for path in named_paths(settings))


if __name__ == "__main__":
    main(sys.argv[1])
