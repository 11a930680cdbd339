"""What is said of the prompts before anything is made: what of them no clip or no model sees."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from longvie_cli.disk.documents import one_line
from longvie_cli.models.prompt_tokens import cut_by_image_model, cut_prompt
from longvie_cli.progress import Progress
from longvie_cli.settings.presets import Preset, Vocabulary
from longvie_cli.settings.prompts import Prompts, TimedPrompt, never_shown
from longvie_cli.timeline import ClipSpec

# Each gets a warning; of more only the number is said.
_MOST_CUT = 5
_MOST_UNKNOWN = 12
# Of each kind of words that a model knows.
_SHOWN_WORDS = 7
# Pictures stand for words.
_WORD = re.compile(r"[^\W\d_]+|[\u2600-\u27bf\U0001f300-\U0001faff]")
_SUFFIXES = ("ing", "ed", "ly", "es", "s", "y")
# What says nothing of what is to be seen, or of how it is told in any video.
_PLAIN_WORDS = """
    a about above across aerial after again against ahead all along also am amazing amber among
    an and animation another any are around as at atmosphere atmospheric away azure back
    backward backwards be beautiful before behind below beneath beside between beyond big blue
    both bright brilliant brown but by calm camera can cinematic clean climbing clip closeup
    cold colorful colourful coming cool crimson crisp cyan day deep descending detailed distant
    down dramatic dreamy drifting drone during each eastern empty endless enormous epic
    ethereal every falls far fast few film fine flies fly flying footage for forward forwards
    frame from gentle gliding going golden gorgeous grand gray great green grey has have hd hdr
    he heavy her here high his hot hour hovering how huge i if in inside into is it its just
    landscape landscapes large left light lights like little lonely long looking lovely low
    magenta magical majestic many massive mood more most moves moving much my mysterious
    natural nature near new no northern not of off old on one onto open or orange orbiting
    other our out outside over pale panorama panoramic passing past peaceful per photorealistic
    picture pink pristine pure purple quality quiet rare realistic red remote render rendering
    rich right rising rugged same scene scenery scenic seen serene sharp she short shot showing
    silent silver slow slowly small smooth so soft some southern spectacular steep still
    stunning style such surreal tall teal than that the their then there these they thin this
    those through time tiny to together too toward towards tranquil turning two uhd under until
    up upon vast very video view violet vivid warm we western wet what when where which while
    white who whose wide wild will winding windy with within without yellow you your
    """
# Other landscapes: what comes of them is one too.
_OTHER_LANDSCAPES = """
    air alps arctic badlands bay beach bluff bog branch brook bush butte cave cavern cliff
    cloud coastline countryside crater creek delta dust earth fell fern field fjord flower
    foliage foothills forest geyser glacier glade glen gorge grass gravel ground grove gulf
    heath highland horizon iceberg inlet jungle knoll lagoon land leaf lowland marsh moon moor
    moss mountainside mountaintop mud ocean outcrop pass pasture pebble pine pinnacle plant
    plateau pond prairie rainbow range rapids ravine reef river sandbar savanna savannah shadow
    shore shoreline slope soil star steppe stone stream summit sun sunlight swamp taiga tree
    tundra vale water waterfall wave wetland wind wood woodland woods
    """


def say_of_prompts(
    progress: Progress,
    *,
    preset: Preset,
    specs: Sequence[ClipSpec],
    prompts: Sequence[str],
    given: Prompts = (),
    negative_prompt: str = "",
) -> None:
    """Warn of prompts that no clip shows, are longer than is read, or mean nothing to the model.

    Args:
        progress: Told of it.
        preset: Whose model reads them.
        specs: The clips.
        prompts: One a clip.
        given: What the prompt file says, if there is one.
        negative_prompt: Empty where it is not read.
    """
    timed = tuple(prompt for prompt in given if isinstance(prompt, TimedPrompt))
    if timed:
        for sentence in never_shown(timed, clip_seconds(specs, preset.fps)):
            progress.warning(f"--prompt-file: {sentence}")
    say_of_texts(progress, preset, _named(prompts), negative_prompt)


def say_of_texts(
    progress: Progress, preset: Preset, named: dict[str, str], negative_prompt: str = ""
) -> None:
    """Warn of texts that are longer than a model reads, or mean nothing to it.

    Args:
        progress: Told of it.
        preset: Whose model reads them.
        named: What messages call each text.
        negative_prompt: Empty where it is not read.
    """
    texts = named | ({negative_prompt: "--negative-prompt"} if negative_prompt else {})
    cuts = ((name, cut_prompt(text, preset)) for text, name in texts.items())
    found = [f"{name}: {cut.words}" for name, cut in cuts if cut is not None]
    for sentence in found[:_MOST_CUT]:
        progress.warning(sentence)
    if len(found) > _MOST_CUT:
        progress.warning(f"{len(found) - _MOST_CUT} more prompts are longer than what is read.")
    if preset.vocabulary is not None and (words := _unknown(named, preset.vocabulary)):
        progress.warning(_unknown_in_words(preset.name, preset.vocabulary, words))


def say_of_first_pictures(progress: Progress, model: Path, prompts: Sequence[str]) -> None:
    """Warn of prompts that are longer than a text-to-image model reads.

    Args:
        progress: Told of it.
        model: Folder of the model.
        prompts: Those of which it makes a picture.
    """
    for prompt in dict.fromkeys(prompts):
        if (cut := cut_by_image_model(prompt, model)) is not None:
            progress.warning(f"--first-frame-model {model.name}: the prompt has {cut.words}")


def clip_seconds(specs: Sequence[ClipSpec], fps: int) -> list[tuple[float, float]]:
    """Return first and last second of what each clip adds, counted from the first of them."""
    ends = list(itertools.accumulate(spec.added_frames for spec in specs))
    return [
        ((end - spec.added_frames) / fps, end / fps) for spec, end in zip(specs, ends, strict=True)
    ]


def prompts_in_words(prompts: Sequence[str]) -> str:
    """Return the prompts of a run whose command gave none, in a few words."""
    distinct = list(dict.fromkeys(prompts))
    shown = ", ".join(repr(one_line(text, 100)) for text in distinct[:2])
    more = len(distinct) - 2
    return f"{shown} and {more} more, one after the other" if more > 0 else shown


def _named(prompts: Sequence[str]) -> dict[str, str]:
    """Return what messages call each distinct prompt: by the clips it begins with."""
    if len(set(prompts)) == 1:
        return {prompts[0]: "the prompt"}
    named: dict[str, str] = {}
    first = 0
    for text, group in itertools.groupby(prompts):
        last = first + len(list(group)) - 1
        clips = f"clip {first}" if last == first else f"clips {first} to {last}"
        named.setdefault(text, f"the prompt of {clips}")
        first = last + 1
    return named


def _unknown(prompts: Sequence[str] | dict[str, str], vocabulary: Vocabulary) -> list[str]:
    """Return the words of prompts that mean nothing to a model, of those where they weigh.

    A prompt is passed over where three words in it are known for each that is not.
    """
    known = {_stem(word) for _, words in vocabulary.words for word in words}
    passed_over = {_stem(word) for word in (_PLAIN_WORDS + _OTHER_LANDSCAPES).split()}
    found: dict[str, None] = {}
    for prompt in prompts:
        words = _WORD.findall(unicodedata.normalize("NFKC", prompt))
        stems = {_stem(word.casefold()): word for word in words if not _is_letter(word)}
        unknown = [word for stem, word in stems.items() if stem not in known | passed_over]
        num_known = len((stems.keys() & known) - passed_over)
        if unknown and 3 * len(unknown) > num_known:
            found |= dict.fromkeys(unknown)
    return list(found)


def _is_letter(word: str) -> bool:
    return len(word) == 1 and word.isascii()


def _stem(word: str) -> str:
    """Return a word without what its forms differ in: snow, snowy, snowing, snows are one."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word.removesuffix(suffix)
            break
    return word.removesuffix("e")


def _unknown_in_words(name: str, vocabulary: Vocabulary, words: Sequence[str]) -> str:
    shown = ", ".join(map(repr, words[:_MOST_UNKNOWN]))
    more = f" and {len(words) - _MOST_UNKNOWN} more" if len(words) > _MOST_UNKNOWN else ""
    known = "; ".join(
        f"{what}: {', '.join(known[:_SHOWN_WORDS])}" for what, known in vocabulary.words
    )
    return (
        f"preset {name} knows {vocabulary.subject} only; {shown}{more} mean nothing to it. "
        f"It knows {known}."
    )
