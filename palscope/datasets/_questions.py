"""The demo's questions: labels, wordings seen in training, and wordings held out from it.

A wording is a template. `{options}` stands for a list of the allowed answers; `{ordinal}` for
first, second or last. A wording without `{options}` names what it asks for (a digit, an
instrument, an everyday sound), so that it stays clear on a clip that mixes domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Wordings = Literal["train", "heldout"]

LABELS: dict[str, tuple[str, ...]] = {
    "sound": (
        "chainsaw",
        "clock tick",
        "crackling fire",
        "crying baby",
        "dog",
        "helicopter",
        "rain",
        "rooster",
        "sea waves",
        "sneeze",
    ),
    "speech": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "music": (
        "cello",
        "choir",
        "drums",
        "flute",
        "guitar",
        "harp",
        "organ",
        "piano",
        "saxophone",
        "trumpet",
        "violin",
        "xylophone",
    ),
}
"""The answer vocabulary of each domain."""

COUNTS = ("one", "two", "three", "four")
"""Answers to "how many digits"."""

ORDINALS = ("first", "second", "last")

TASK_OF_DOMAIN = {"sound": "sound", "speech": "digit", "music": "instrument"}
"""The task that a single clip of a domain is asked about."""

TRAIN: dict[str, tuple[str, ...]] = {
    "sound": (
        "Which everyday sound is this?",
        "What environmental sound can be heard?",
        "What makes the noise in this clip?",
        "Name the sound event.",
        "Which sound source is in the recording?",
        "What kind of noise is this?",
        "Identify the environmental sound in the audio.",
        "Tell me which sound event you hear.",
        "Which everyday noise was recorded here?",
        "What is the source of this noise?",
        "Listen to the clip and name the environmental sound.",
        "Classify the environmental sound.",
        "Which sound is this? Choose from: {options}.",
        "What do you hear? Options: {options}.",
        "Pick the sound in the audio: {options}.",
        "One of these sounds is in the clip: {options}. Which one?",
        "Is this {options}?",
        "Classify the audio as one of: {options}.",
        "What was recorded here, {options}?",
        "The sound is one of {options}. Answer with its name.",
    ),
    "digit": (
        "Which digit is spoken?",
        "What number does the speaker say?",
        "Which digit do you hear?",
        "Name the spoken digit.",
        "What digit was said in this recording?",
        "Write down the number that is spoken.",
        "Someone says a digit. Which one?",
        "Identify the spoken number.",
        "Transcribe the spoken digit.",
        "Tell me the digit that the voice says.",
        "Listen to the voice: which number is it?",
        "What is the spoken number?",
        "Which digit is spoken? Choose from: {options}.",
        "What does the voice say? Options: {options}.",
        "Pick the digit you hear: {options}.",
        "One of these digits is said: {options}. Which one?",
        "Does the speaker say {options}?",
        "Classify the spoken word as one of: {options}.",
        "Which number was said, {options}?",
        "The spoken digit is one of {options}. Answer with the digit.",
    ),
    "instrument": (
        "Which instrument plays?",
        "What musical instrument is this?",
        "Name the instrument in the recording.",
        "Which instrument do you hear?",
        "What instrument is being played?",
        "Identify the musical instrument.",
        "The music is played on which instrument?",
        "Tell me the instrument of this melody.",
        "Listen to the music: which instrument is it?",
        "What kind of instrument plays the notes?",
        "Which musical instrument was recorded here?",
        "Classify the instrument of this phrase.",
        "Which instrument is this? Choose from: {options}.",
        "What plays the music? Options: {options}.",
        "Pick the instrument you hear: {options}.",
        "One of these instruments plays: {options}. Which one?",
        "Is the music played by {options}?",
        "Classify the music as one of: {options}.",
        "What was played here, {options}?",
        "The instrument is one of {options}. Answer with its name.",
    ),
    "digit_order": (
        "Which digit is spoken {ordinal}?",
        "What is the {ordinal} digit?",
        "Which number is said {ordinal}?",
        "Name the {ordinal} spoken digit.",
        "Several digits are spoken. Which one comes {ordinal}?",
        "What {ordinal} number does the speaker say?",
        "Tell me the {ordinal} digit in the recording.",
        "Listen to the sequence: which digit is {ordinal}?",
        "Identify the {ordinal} number.",
        "Of the spoken digits, which is the {ordinal}?",
        "Write down only the {ordinal} digit.",
        "In the spoken sequence, what is the {ordinal} number?",
        "Which digit is {ordinal}? Choose from: {options}.",
        "Pick the {ordinal} digit you hear: {options}.",
        "The {ordinal} spoken digit is one of {options}. Which one?",
    ),
    "digit_count": (
        "How many digits are spoken?",
        "How many numbers does the speaker say?",
        "Count the spoken digits.",
        "How many digits do you hear?",
        "What is the count of spoken digits?",
        "Tell me how many digits are said.",
        "Count the numbers in the recording.",
        "How many spoken numbers are in the clip?",
        "Listen and count: how many digits?",
        "The speaker says how many digits?",
        "How many digits does the clip hold? Choose from: {options}.",
        "How many numbers are said, {options}?",
    ),
    "digit_list": (
        "Which digits are spoken, in order?",
        "List the spoken digits in order.",
        "Transcribe all the digits.",
        "Write down the sequence of spoken digits.",
        "What numbers are said, from first to last?",
        "Repeat the digits in the order they are spoken.",
        "Name every digit you hear, in order.",
        "What is the spoken sequence of numbers?",
    ),
    "sound_list": (
        "Which sounds are heard, in order?",
        "Name both sounds in the order they come.",
        "What are the two sounds, from first to last?",
        "List the sound events in order.",
        "Write down the sequence of everyday sounds.",
        "Which two noises follow each other, and in which order?",
        "Name every environmental sound you hear, in order.",
        "What is the sequence of sounds in the clip?",
    ),
    "sound_order": (
        "Two sounds follow each other. Which comes {ordinal}?",
        "Which sound event is heard {ordinal}?",
        "What is the {ordinal} sound in the clip?",
        "Name the {ordinal} environmental sound.",
        "Of the two sounds, which is {ordinal}?",
        "Which everyday sound comes {ordinal}?",
        "Identify the {ordinal} of the two sounds.",
        "Tell me which noise you hear {ordinal}.",
        "Which comes {ordinal}: {options}?",
        "Which sound is {ordinal}, {options}?",
        "You hear two sounds: {options}. Which is {ordinal}?",
        "Is the {ordinal} sound {options}?",
        "Pick the sound that comes {ordinal}: {options}.",
        "What is heard {ordinal}? Options: {options}.",
    ),
}
"""Wordings used in training, by task."""

HELDOUT: dict[str, tuple[str, ...]] = {
    "sound": (
        "Can you recognise the noise that was captured?",
        "This audio features what type of sound?",
        "Given the candidates {options}, select the one matching the audio.",
        "Label this clip ({options}):",
    ),
    "digit": (
        "Can you make out the numeral that is uttered?",
        "This person pronounces what single-digit number?",
        "Given the candidates {options}, select the one that is pronounced.",
        "Label this utterance ({options}):",
    ),
    "instrument": (
        "Can you recognise what is being played on?",
        "This tune is performed with what kind of instrument?",
        "Given the candidates {options}, select the one performing.",
        "Label this piece of music ({options}):",
    ),
    "digit_order": (
        "Can you make out the numeral uttered {ordinal}?",
        "A person reads out numbers; give the {ordinal} one.",
        "From the candidates {options}, select the one pronounced {ordinal}.",
        "What does the voice say {ordinal}?",
    ),
    "digit_count": (
        "What is the total of numerals uttered?",
        "A person reads out some numbers. State the quantity.",
        "Give the amount of digits pronounced, among {options}.",
        "The voice utters how many separate numbers?",
    ),
    "digit_list": (
        "Write out each numeral as it is uttered.",
        "A person reads out some numbers: what are they?",
        "Give the full series of digits pronounced.",
        "Read the numerals back to me.",
    ),
    "sound_list": (
        "Write out each noise as it occurs.",
        "The recording joins two events: what are they, one after the other?",
        "Give the full series of noises.",
        "Recount the noises one by one.",
    ),
    "sound_order": (
        "What noise was captured {ordinal}?",
        "The recording joins two events; give the {ordinal} one.",
        "Between {options}, select the one occurring {ordinal}.",
        "Put in order ({options}), which one is {ordinal}?",
    ),
}
"""Wordings never trained on, by task; used to see how much hangs on the phrasing."""

GENERIC = (
    "What is heard in this recording? Choose from: {options}.",
    "Pick the best label for this audio: {options}.",
    "Which of these fits the clip: {options}?",
)
"""Wordings for a domain that the demo does not know. They always list the options."""


def wordings_of(task: str, wordings: Wordings) -> tuple[str, ...]:
    """The templates of a task; a task that the demo does not know gets `GENERIC`."""
    table = TRAIN if wordings == "train" else HELDOUT
    return table.get(task, GENERIC)


def fill(
    template: str, choices: Sequence[str], rng: np.random.Generator, *, ordinal: str = ""
) -> str:
    """A template's text, with the choices listed in random order where it asks for options."""
    return template.format(options=list_options(choices, rng), ordinal=ordinal)


def list_options(choices: Sequence[str], rng: np.random.Generator) -> str:
    """The choices in random order, in one of a few common ways to write a list."""
    items = [choices[int(i)] for i in rng.permutation(len(choices))]
    style = rng.integers(3)
    if style == 0 or len(items) < 2:
        return ", ".join(items)
    if style == 1:
        return " / ".join(items)
    return ", ".join(items[:-1]) + " or " + items[-1]


def ask(
    task: str,
    choices: Sequence[str],
    rng: np.random.Generator,
    *,
    wordings: Wordings = "train",
    ordinal: str = "",
) -> str:
    """A question of a task in a random wording."""
    templates = wordings_of(task, wordings)
    return fill(templates[rng.integers(len(templates))], choices, rng, ordinal=ordinal)
