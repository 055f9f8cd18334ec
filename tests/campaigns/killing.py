"""Kills a command at drawn moments, again and again, until it has had enough; then lets it end.

What was done is kept in a file, so that a campaign that is stopped goes on where it was.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOOK_SECONDS = 0.02
_LAST_LINES = 15
_ALLOWED_SECONDS = 900.0  # for one run until its kill


class CampaignError(Exception):
    """The campaign cannot go on. One sentence, with the end of what the command printed."""


@dataclass(frozen=True)
class Campaign:
    """Where a campaign works, with which seed, how many kills of how large a run."""

    name: str
    folder: Path
    seed: int
    kills: int
    size: int

    def draw(self, kill: int) -> random.Random:
        """The random numbers of one kill."""
        return random.Random(f"{self.seed}:{self.name}:{kill}")

    @property
    def log(self) -> Path:
        """All that the commands print."""
        return self.folder / "printed.log"


class Memory:
    """What a campaign has done, in `done.json`; refuses to go on with other settings."""

    def __init__(self, campaign: Campaign) -> None:
        self._path = campaign.folder / "done.json"
        settings = {"seed": campaign.seed, "kills": campaign.kills, "size": campaign.size}
        campaign.folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._done: dict[str, Any] = json.loads(self._path.read_text("utf-8"))
            if self._done["settings"] != settings:
                raise CampaignError(
                    f"{campaign.folder} holds a campaign with {self._done['settings']}, now it is "
                    f"{settings}; give the old settings, or another --output-dir"
                )
        else:
            self._done = {"settings": settings, "parts": [], "kills": [], "rounds": 0}
            self._save()

    def once(self, part: str, work: Callable[[], None]) -> None:
        """Do a part that was not finished before."""
        if part not in self._done["parts"]:
            work()
            self._done["parts"].append(part)
            self._save()

    @property
    def kills(self) -> list[dict[str, Any]]:
        """What is known of each kill."""
        return list(self._done["kills"])

    def add_kill(self, **known: Any) -> None:
        """One more."""
        self._done["kills"].append(known)
        self._save()

    @property
    def rounds(self) -> int:
        """How many disturbed runs have come to their end."""
        return int(self._done["rounds"])

    def end_round(self) -> None:
        """One more has."""
        self._done["rounds"] += 1
        self._save()

    def _save(self) -> None:
        aside = self._path.with_suffix(".new")
        aside.write_text(json.dumps(self._done, indent=1), "utf-8")
        aside.replace(self._path)


def environment() -> dict[str, str]:
    """One thread, no network: two runs of the same command do the same to the bit."""
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }


def start(words: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    """`python -m WORDS`, its output appended to the log."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *words], env=environment(), stdout=file, stderr=file
        )


def run_to_end(words: Sequence[str], log: Path, statuses: frozenset[int] = frozenset({0})) -> None:
    """Run a command; raises CampaignError for another exit status."""
    process = start(words, log)
    try:
        status = process.wait()
    finally:
        process.kill()
    if status not in statuses:
        raise CampaignError(f"{' '.join(words[:1])} ended with status {status}: {last_lines(log)}")


def last_lines(log: Path) -> str:
    """The end of a log."""
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-_LAST_LINES:])


def was_killed(
    words: Sequence[str], log: Path, is_time: Callable[[float], bool], statuses: frozenset[int]
) -> bool:
    """Start a command and kill it (SIGKILL) once `is_time(seconds since the start)`; False where it
    ended by itself before, with one of `statuses`. Raises CampaignError for another status, or
    where the moment does not come."""
    started = time.monotonic()
    process = start(words, log)
    try:
        while not is_time(time.monotonic() - started):
            if process.poll() is not None:
                break
            if time.monotonic() - started > _ALLOWED_SECONDS:
                raise CampaignError(f"the moment for a kill did not come in {_ALLOWED_SECONDS:g} s")
            time.sleep(LOOK_SECONDS)
        process.send_signal(signal.SIGKILL)
        status = process.wait()
    finally:
        process.kill()
    if status == -signal.SIGKILL:
        return True
    if status not in statuses:
        raise CampaignError(f"{words[0]} ended with status {status}: {last_lines(log)}")
    return False


Moment = tuple[str, Callable[[float], bool]]
"""When to kill, in words and as a function of the seconds since the start."""


def killed_runs(
    campaign: Campaign,
    memory: Memory,
    words_of: Callable[[Path], list[str]],
    moment_of: Callable[[Path, int], Moment],
    state_of: Callable[[Path], str],
    statuses: frozenset[int] = frozenset({0}),
) -> list[Path]:
    """Run a command with all the campaign's kills; the folders of what it made.

    A run that ends before its kills are used up is followed by another one, in a new folder.
    """

    def folder() -> Path:
        return campaign.folder / f"killed-{memory.rounds + 1}"

    while (kill := len(memory.kills) + 1) <= campaign.kills:
        out, started = folder(), time.monotonic()
        what, is_time = moment_of(out, kill)
        if not was_killed(words_of(out), campaign.log, is_time, statuses):
            print(f"{campaign.name}: {out.name} is at its end, a new run begins", flush=True)
            memory.end_round()
            continue
        seconds = time.monotonic() - started
        memory.add_kill(run=out.name, moment=what, seconds=round(seconds, 1), state=state_of(out))
        print(
            f"{campaign.name}: kill {kill} of {campaign.kills}, {what}, {seconds:.1f} s:"
            f" {state_of(out)}",
            flush=True,
        )
    if folder().exists():
        run_to_end(words_of(folder()), campaign.log, statuses)
        memory.end_round()
    return [campaign.folder / f"killed-{number + 1}" for number in range(memory.rounds)]
