"""What the page calls each thing, and what it is, in words: the tips, the `?` page and the docs say the same."""

from __future__ import annotations

__all__ = ["TERMS"]

#: Name in the data → name on the page, and what it is. The evidence comes under the names that the scan gives it.
TERMS: dict[str, tuple[str, str]] = {
    "candidate": (
        "candidate",
        "A training image that the scan found: among those of its class, the model gives it the highest logit. Its "
        "number is its place in the data set.",
    ),
    "cluster": (
        "cluster",
        "Candidates of one class whose masked images rest on the same neurons, so they often show the same thing.",
    ),
    "masked": (
        "masked image",
        "The candidate with everything grey but the region that the class's logit rests on most. Judge this.",
    ),
    "logit": (
        "logit",
        "The model's score for the class on the whole image, before the softmax. The scan takes the images with the "
        "highest.",
    ),
    "margin": (
        "masked image alone",
        "What the model answers when it sees the masked image and nothing else, and by how many logits the class "
        "leads over the strongest other class. What suffices may be a shortcut or the heart of the class.",
    ),
    "suspicion": (
        "suspicion",
        "From 0 to 1: the mean place of the cluster's candidates when all candidates of the run are put in order by "
        "transfer and by colour contrast. It says where to look first and not whether there is a shortcut: something "
        "always comes first.",
    ),
    "transfer": (
        "transfer",
        "In logits: how far the masked region moves images of other classes towards this class when it is put into "
        "them. What works in any image is a shortcut more often than not.",
    ),
    "hue_contrast": (
        "colour contrast",
        "How far the mean colour inside the mask is from that of the rest of the image, brightness aside. Patches, "
        "marks and stamps are often of a colour of their own; a shortcut without one scores low.",
    ),
    "masked_alone": (
        "region suffices",
        "Share of the cluster's candidates that keep their class when the model sees the masked image alone.",
    ),
    "position": (
        "same place",
        "From 0 to 1: how much the masks of two candidates of the cluster overlap on average (intersection over "
        "union). High where the region lies at the same place in every image.",
    ),
    "share": (
        "share of relevance",
        "The part of the cluster's relevance, in its masked images, that goes through this neuron.",
    ),
}
