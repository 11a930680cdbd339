"""Prompts over time or a clip: a prompt file says which text is in force where."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from longvie_cli.disk.documents import (
    MAX_YAML_BYTES,
    briefly,
    decoded,
    one_line,
    parse_yaml,
    read_document,
)
from longvie_cli.errors import SettingsError

# A range may end this much after the video does: lengths are rounded to frames, people round to
# seconds.
END_TOLERANCE_SECONDS = 0.5

# Beyond, a time is a slip of the pen: a day has 86400 s.
_LONGEST_SECONDS = 100_000.0
# A line with a mark before its text: `[0s-20s] a forest`; in brackets of other keyboards too.
_MARKED_LINE = re.compile(
    r"^[\[\uff3b\u3010\u3014](?P<mark>[^\]\uff3d\u3011\u3015]*)[\]\uff3d\u3011\u3015]\s*(?P<text>.*)$"
)
# What begins so is meant as such a line, unless it is a list of YAML.
_LIKE_A_MARK = re.compile(r"^(?:\[(?!\s*[{\[\"'])|[\uff3b\u3010\u3014])")
_RANGE = re.compile(r"^(?P<start>[^\s-]+)(?:\s*-\s*|\s+to\s+)(?P<end>[^\s-]+)$")
_CLIPS = re.compile(r"^(?P<first>\d+)(?:(?:\s*-\s*|\s+to\s+)(?P<last>\d+))?$")
_CLIP_WORD = re.compile(r"^clips?\s+")
# Dashes, the minus sign and the tilde, which people and their editors write for a hyphen.
_DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0x301C, 0x7E), "-")
_TIME = re.compile(r"^(?:(?P<minutes>\d+(?:\.\d+)?)m)?(?:(?P<seconds>\d+(?:\.\d+)?)s?)?$")
# Letters and signs that show nothing, beside those that are no letters at all.
_EMPTY_LETTERS = set("\u115f\u1160\u2800\u3164\uffa0")
# Warnings that name one prompt each; the rest share one.
_NAMED_SINGLY = 20
_CLOCK = re.compile(r"^(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)$")


def is_blank(text: str) -> bool:
    """Return whether a text shows nothing: only spaces, control and zero-width characters."""
    return all(
        unicodedata.category(character)[0] in "CZM" or character in _EMPTY_LETTERS
        for character in text
    )


def _no_blank(text: str) -> str:
    if is_blank(text):
        raise ValueError("a prompt must say something; this one is empty")
    return text


PromptText = Annotated[str, AfterValidator(_no_blank)]
"""A prompt; one that shows nothing is mostly a shell variable that is not set."""


class TimedPrompt(BaseModel):
    """A prompt and the seconds in which it is in force; `end_seconds` None means to the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start_seconds: float = Field(ge=0.0)
    end_seconds: float | None = None
    text: str = Field(min_length=1)


class ClipPrompt(BaseModel):
    """A prompt and the clips it is for, counted from 0, both ends included.

    Args:
        first_clip: The first of them.
        last_clip: The last of them; clips after it that no entry names go on with this text.
        text: The prompt.
        seed: Of the noise of exactly these clips; None for the run's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_clip: int = Field(ge=0)
    last_clip: int = Field(ge=0)
    text: str = Field(min_length=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)


Prompts = tuple[TimedPrompt, ...] | tuple[ClipPrompt, ...]
"""What a prompt file says: prompts over time, or prompts a clip."""


def parse_time(value: str | float) -> float:
    """Return the seconds of `90`, `90s`, `1.5m`, `1m30s`, `1:30` or `0:01:30`.

    Raises:
        ValueError: The value is none of these, or more than 100000 s.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"a time cannot be negative: {briefly(value)}")
        return _possible(value, value)
    text = _plainly_written(str(value))
    if clock := _CLOCK.match(text):
        hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        return _possible(value, hours * 3600 + minutes * 60 + seconds)
    match = _TIME.match(text)
    if not text or match is None:
        raise ValueError(f"{briefly(value)} is no time; write 90s, 1.5m or 1:30")
    return _possible(value, float(match["minutes"] or 0) * 60 + float(match["seconds"] or 0))


def _plainly_written(text: str) -> str:
    """Return a mark or time in small letters, with the digits, colons and dashes of ASCII."""
    return unicodedata.normalize("NFKC", text).translate(_DASHES).strip().lower()


def _possible(value: str | float, seconds: float) -> float:
    if not seconds <= _LONGEST_SECONDS:
        raise ValueError(f"{briefly(value)} is longer than a day")
    return float(seconds)


def is_marked(content: str) -> bool:
    """Return whether the first line of a text begins with a range in brackets, `[0s-20s]`."""
    return _LIKE_A_MARK.match(_first_text(content)) is not None


def _first_text(content: str) -> str:
    return next((line.strip() for line in content.splitlines() if _is_text(line)), "")


def read_prompt_file(path: Path) -> Prompts:
    """Read a prompt file: `[0s-20s] text` or `[clip 0-3] text` lines, or YAML that says the same.

    YAML is a list of `{from: 0s, to: 20s, text: ...}` mappings (`to` may be left out: until the
    next one begins), or of `{clip: 0-3, text: ..., seed: 7}` mappings (`seed` may be left out).
    In the line format, `end` stands for the end of the video, and lines without a range go on
    with the text before them. Times may not overlap or leave a gap; a clip that no entry names
    goes on with the text of the clip before. A file says times or clips, not both.

    Raises:
        SettingsError: The file is missing or malformed, or its ranges do not follow one another.
    """
    try:
        content = decoded(read_document(path, MAX_YAML_BYTES))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{path.name}: cannot read this prompt file ({_reason(error)})."
        ) from error
    try:
        prompts = _from_lines(content) if is_marked(content) else _from_yaml(content)
        clips = [prompt for prompt in prompts if isinstance(prompt, ClipPrompt)]
        if clips:
            return _checked_clips(clips)
        return _checked([prompt for prompt in prompts if isinstance(prompt, TimedPrompt)])
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise SettingsError(
            f"{path.name}: {reason}.",
            hint="Write lines like `[0s-20s] a forest in snow` or `[clip 0] a forest in snow`, or "
            "YAML: `- {from: 0s, to: 20s, text: a forest in snow}`.",
        ) from error


def check_prompts_fit(prompts: tuple[TimedPrompt, ...], total_seconds: float, source: str) -> None:
    """Check that the prompts cover a video of `total_seconds`, no more and no less.

    Raises:
        SettingsError: A range begins or ends after the video, or nothing is said about its end.
    """
    for prompt in prompts:
        last = prompt.end_seconds if prompt.end_seconds is not None else prompt.start_seconds
        if last > total_seconds + END_TOLERANCE_SECONDS or prompt.start_seconds >= total_seconds:
            raise SettingsError(
                f"{source}: {_label(prompt)} reaches past the end of the video "
                f"({total_seconds:.2f} s).",
                hint="Shorten the range, or make the video longer.",
            )
    end = prompts[-1].end_seconds
    if end is not None and end < total_seconds - END_TOLERANCE_SECONDS:
        raise SettingsError(
            f"{source}: the last range ends at {end:g} s, but the video at {total_seconds:.2f} s.",
            hint="Let the last range end with `end`, as in "
            f"[{_plain(prompts[-1].start_seconds)}s-end].",
        )


def prompt_at(prompts: tuple[TimedPrompt, ...], seconds: float) -> str:
    """Return the text in force at a time; after the last range its text stays in force."""
    current = prompts[0]
    for prompt in prompts:
        if prompt.start_seconds <= seconds:
            current = prompt
    return current.text


def never_shown(
    prompts: tuple[TimedPrompt, ...], clips: Sequence[tuple[float, float]]
) -> list[str]:
    """Return a sentence about each prompt that no clip shows, with the shortest that one would.

    A clip shows the one prompt that is in force at its middle.

    Args:
        prompts: What the prompt file says.
        clips: First and last second of each clip, in order.
    """
    longest = max(end - start for start, end in clips)
    middles = [(start + end) / 2 for start, end in clips]
    shown = [prompt_at(prompts, middle) for middle in middles]
    hidden = []
    for prompt in prompts:
        end = math.inf if prompt.end_seconds is None else prompt.end_seconds
        instead = [
            text
            for text, (first, last) in zip(shown, clips, strict=True)
            if first < end and last > prompt.start_seconds
        ]
        # Where the same text is shown around it, nothing is lost.
        if prompt.text not in instead:
            hidden.append(prompt)
    said = [
        f"{_label(prompt)} {one_line(prompt.text, 40)!r} is never shown: a clip ({longest:.4g} s) "
        f"shows the one prompt in force at its middle. {_shortest(prompt, clips, longest)}"
        for prompt in hidden[:_NAMED_SINGLY]
    ]
    if rest := hidden[_NAMED_SINGLY:]:
        said.append(f"{', '.join(map(_label, rest))} are never shown either.")
    return said


def _shortest(
    prompt: TimedPrompt, clips: Sequence[tuple[float, float]], longest_clip: float
) -> str:
    """Return what would be long enough for a prompt to be shown."""
    start = prompt.start_seconds
    for first, last in clips:
        if (first + last) / 2 >= start:
            end = math.floor((first + last) * 50 + 1) / 100
            shortest = _label(prompt.model_copy(update={"end_seconds": end}))
            return f"The shortest that would be is {shortest}; one as long as a clip always is."
    first, last = clips[-1]
    # The last clip grows with the video until it is whole; then another one begins.
    needed = min(2 * start - first, first + longest_clip)
    return f"The shortest video that shows it lasts {math.ceil(needed * 100 + 1) / 100:g} s."


def check_clips_fit(prompts: tuple[ClipPrompt, ...], num_clips: int, source: str) -> None:
    """Check that a prompt file names no clip that the video has not.

    Raises:
        SettingsError: It does.
    """
    for prompt in prompts:
        if prompt.last_clip >= num_clips:
            raise SettingsError(
                f"{source}: {_clip_label(prompt)} is past the last clip; the video has "
                f"{num_clips} clips, 0 to {num_clips - 1}.",
                hint="Name fewer clips, or make the video longer.",
            )


def prompt_of_clip(prompts: tuple[ClipPrompt, ...], clip_index: int) -> str:
    """Return the text of a clip: that of the last entry that begins at it or before."""
    return [prompt for prompt in prompts if prompt.first_clip <= clip_index][-1].text


def seed_of_clip(prompts: tuple[ClipPrompt, ...], clip_index: int) -> int | None:
    """Return the seed of the entry that names a clip, None if it has none."""
    for prompt in prompts:
        if prompt.first_clip <= clip_index <= prompt.last_clip:
            return prompt.seed
    return None


def _from_lines(content: str) -> list[TimedPrompt | ClipPrompt]:
    prompts: list[TimedPrompt | ClipPrompt] = []
    # The lines of each text, joined once at the end.
    texts: list[list[str]] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not _is_text(line):
            continue
        text = line.strip()
        try:
            mark = _mark_of(text)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if mark is None:
            if _LIKE_A_MARK.match(text):
                raise ValueError(
                    f"line {number}: {briefly(text)} begins with no range [start-end] or [clip]"
                )
            texts[-1].append(text)
            continue
        if prompts and isinstance(prompts[0], ClipPrompt) != isinstance(mark, ClipPrompt):
            raise ValueError(f"line {number}: {briefly(text)}: times and clips cannot be mixed")
        prompts.append(mark)
        texts.append([_MARKED_LINE.sub(r"\g<text>", text)])
    return [
        prompt.model_copy(update={"text": " ".join(lines).strip()})
        for prompt, lines in zip(prompts, texts, strict=True)
    ]


def _mark_of(line: str) -> TimedPrompt | ClipPrompt | None:
    """Return the times or clips that a line begins with, without its text; None if it does not.

    Raises:
        ValueError: It begins with a range of something else than times.
    """
    found = _MARKED_LINE.match(line)
    mark = "" if found is None else _plainly_written(found["mark"])
    if _CLIP_WORD.match(mark):
        clips = _CLIPS.match(_CLIP_WORD.sub("", mark))
        return None if clips is None else _clip_prompt(clips, "")
    times = _RANGE.match(mark)
    if times is None:
        return None
    return TimedPrompt.model_construct(
        start_seconds=parse_time(times["start"]),
        end_seconds=None if times["end"] == "end" else parse_time(times["end"]),
        text="",
    )


def _clip_prompt(match: re.Match[str], text: str, seed: Any = None) -> ClipPrompt:
    first = int(match["first"])
    return ClipPrompt.model_construct(
        first_clip=first, last_clip=int(match["last"] or first), text=text, seed=seed
    )


def _from_yaml(content: str) -> list[TimedPrompt | ClipPrompt]:
    document = parse_yaml(content)
    if not isinstance(document, list) or not document:
        raise ValueError("expected a list of prompts")
    prompts: list[TimedPrompt | ClipPrompt] = []
    for number, item in enumerate(document, start=1):
        if not isinstance(item, dict):
            raise ValueError(f"entry {number} is no mapping with from, to and text")
        unknown = sorted(set(map(str, item)) - {"from", "to", "clip", "seed", "text"})
        if unknown:
            raise ValueError(
                f"entry {number}: unknown key {briefly(unknown[0])}; known are "
                "from, to, clip, seed, text"
            )
        text = _text_of(number, item)
        if "clip" in item and {"from", "to"} & set(item):
            raise ValueError(f"entry {number}: times and clips cannot be mixed")
        if prompts and isinstance(prompts[0], ClipPrompt) != ("clip" in item):
            raise ValueError(f"entry {number}: times and clips cannot be mixed")
        if "clip" in item:
            prompts.append(_clip_entry(number, item, text))
            continue
        if "seed" in item:
            raise ValueError(f"entry {number}: a seed belongs to a clip, not to a time")
        end = item.get("to")
        prompts.append(
            TimedPrompt.model_construct(
                start_seconds=parse_time(item.get("from", 0)),
                end_seconds=None if end is None or end == "end" else parse_time(end),
                text=text,
            )
        )
    return prompts


def _text_of(number: int, item: dict[Any, Any]) -> str:
    if "text" not in item:
        raise ValueError(f"entry {number} has no text")
    if not isinstance(item["text"], str):
        raise ValueError(f"entry {number}: {briefly(item['text'])} is no text; put it in quotes")
    return item["text"].strip()


def _clip_entry(number: int, item: dict[Any, Any], text: str) -> ClipPrompt:
    clips, seed = _CLIPS.match(_plainly_written(str(item["clip"]))), item.get("seed")
    if clips is None:
        raise ValueError(f"entry {number}: {briefly(item['clip'])} is no clip; write 0 or 0-3")
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**63):
        raise ValueError(
            f"entry {number}: the seed must be a whole number from 0, not {briefly(seed)}"
        )
    return _clip_prompt(clips, text, seed)


def _checked_clips(prompts: list[ClipPrompt]) -> tuple[ClipPrompt, ...]:
    if prompts[0].first_clip != 0:
        raise ValueError(f"the first text is for clip {prompts[0].first_clip}, not for clip 0")
    for prompt, following in zip(prompts, [*prompts[1:], None], strict=True):
        if is_blank(prompt.text):
            raise ValueError(f"{_clip_label(prompt)} has no text")
        if prompt.last_clip < prompt.first_clip:
            raise ValueError(f"{_clip_label(prompt)} ends before it begins")
        if following is not None and following.first_clip <= prompt.last_clip:
            raise ValueError(f"{_clip_label(following)} does not come after {_clip_label(prompt)}")
    return tuple(prompts)


def _clip_label(prompt: ClipPrompt) -> str:
    last = "" if prompt.last_clip == prompt.first_clip else f"-{prompt.last_clip}"
    return f"[clip {prompt.first_clip}{last}]"


def _checked(prompts: list[TimedPrompt]) -> tuple[TimedPrompt, ...]:
    if prompts[0].start_seconds != 0:
        raise ValueError(
            f"the first range begins at {_plain(prompts[0].start_seconds)} s, not at 0"
        )
    for index, prompt in enumerate(prompts):
        if is_blank(prompt.text):
            raise ValueError(f"{_label(prompt)} has no text")
        following = prompts[index + 1] if index + 1 < len(prompts) else None
        if prompt.end_seconds is not None and prompt.end_seconds <= prompt.start_seconds:
            raise ValueError(f"{_label(prompt)} ends before it begins")
        if following is None:
            continue
        if following.start_seconds <= prompt.start_seconds:
            raise ValueError(f"{_label(following)} begins before {_label(prompt)} does")
        if prompt.end_seconds is None:
            prompts[index] = prompt.model_copy(update={"end_seconds": following.start_seconds})
        elif prompt.end_seconds != following.start_seconds:
            what = "overlap" if prompt.end_seconds > following.start_seconds else "leave a gap"
            raise ValueError(f"{_label(prompt)} and {_label(following)} {what}")
    return tuple(prompts)


def _label(prompt: TimedPrompt) -> str:
    end = "end" if prompt.end_seconds is None else f"{_plain(prompt.end_seconds)}s"
    return f"[{_plain(prompt.start_seconds)}s-{end}]"


def _plain(seconds: float) -> str:
    """Return seconds as a prompt file may hold them: no exponent, at most microseconds."""
    return f"{seconds:.6f}".rstrip("0").removesuffix(".")


def _is_text(line: str) -> bool:
    stripped = line.strip()
    return bool(stripped) and not stripped.startswith("#")


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
