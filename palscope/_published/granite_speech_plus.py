"""Granite Speech Plus: Granite Speech whose projector reads lower layers of the conformer, too."""

from __future__ import annotations

from palscope._published.granite_speech import GraniteSpeech


class GraniteSpeechPlus(GraniteSpeech):
    """Granite Speech, whose Q-Former reads some lower layers' outputs beside the last one's.

    Which layers is in the config (`cat_hidden_layers`). The output of the middle layer is read with
    the CTC head's guess in it, as the class adds that in place.
    """

    model_types = ("granite_speech_plus",)
    checkpoints = (("ibm-granite/granite-speech-4.1-2b-plus", "2 B"),)
    architecture = "GraniteSpeechPlusForConditionalGeneration"
