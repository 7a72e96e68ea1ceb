"""The command line, frozen: its commands, its flags, and what it says when either is mistyped."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from autotune.cli.app import app
from autotune.records.plan import LEVERS

CALL = {
    *("--height", "--width", "--batch", "--frames", "--steps", "--guidance", "--guidance-scale", "--negative-prompt"),
    *("--prompt-tokens", "--image", "--mask", "--video", "--strength", "--argument"),
    *("--loaded-as", "--controlnet", "--lora-rank", "--ip-adapter", "--torch", "--allocator"),
}
FIXED = {"--allow", "--calls", "--keep", "--forbid", "--profiles", "--no-profiles", "--no-undo"}
PLACE = {"--gpu", "--device"}
CAPS = {"--max-vram", "--max-ram", "--ram"}
VERBOSE = {"-v", "--verbose"}
LEVER_FLAGS = {"--" + lever.replace("_", "-") for lever in LEVERS}
COMMANDS = {
    "probe": {"--json", "--calibrate"},
    "plan": {"--json", "--code", *VERBOSE, *CAPS, "--quality", "--objective", *PLACE, *CALL, *FIXED},
    "explore": {"--json", *CAPS, "--quality", "--objective", *PLACE, *CALL, *FIXED},
    "estimate": {"--json", "--keep", *VERBOSE, *CAPS, *PLACE, *CALL, *LEVER_FLAGS},
    "explain": {"--json", *VERBOSE, *CAPS, *PLACE, *CALL},
    "models": {"--json"},
    "gpus": {"--json"},
    "profiles list": {"--json", "--profiles"},
    "profiles show": {"--json", "--profiles"},
    "profiles build": {"--json", "--model", "--out"},
}


def leaves(command, path=()):
    """Every command that does something, by its words."""
    for name, child in getattr(command, "commands", {}).items():
        yield from leaves(child, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


def run(*words):
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})


def test_commands_and_flags():
    found = {
        name: {flag for parameter in command.params for flag in parameter.opts if flag.startswith("-")}
        for name, command in leaves(typer.main.get_command(app))
    }
    assert {name: flags - {"--help"} for name, flags in found.items()} == COMMANDS


def test_every_flag_and_command_has_a_text():
    for name, command in leaves(typer.main.get_command(app)):
        getattr(command, "describe", lambda: None)()
        assert command.help, name
        assert [p.name for p in command.params if not getattr(p, "help", None)] == [], name


@pytest.mark.parametrize("command", ["", "profiles", *COMMANDS])
def test_help(command):
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Usage: root {command}".rstrip() in result.stdout or f"Usage: autotune {command}".rstrip() in result.stdout


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["plan", "sd15", "--maxvram", "4GB"], "--max-vram"),
        (["plan", "sd15", "--hieght", "512"], "--height"),
        (["explore", "sd15", "--gpus", "Tesla T4"], "--gpu"),
        (["pln", "sd15"], "'plan'"),
        (["profiles", "bild"], "'build'"),
        (["plan", "sd15", "--quality", "nearly"], "near"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest(words, nearest):
    result = run(*words)
    assert result.exit_code == 2
    assert nearest in result.stderr
    assert result.stdout == ""


def test_python_m_autotune_is_the_same_command_line():
    result = subprocess.run(
        [sys.executable, "-m", "autotune", "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert all(command.split()[0] in result.stdout for command in COMMANDS)
